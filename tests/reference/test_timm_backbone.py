"""A backbone of timm: what is asked of timm, and the sentence where timm is not there."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from reference.networks.deeplab import DeepLab
from reference.networks.timm_backbone import TimmBackbone
from reference.networks.weights import load_weights
from tests.reference.small_networks import SMALL


class Pyramid(nn.Module):
    """Two feature maps, as a network of timm with features_only=True returns them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 8, stride=8)
        self.norm = nn.BatchNorm2d(12)
        self.feature_info = SimpleNamespace(channels=lambda: [3, 12], reduction=lambda: [1, 8])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x, self.norm(self.conv(x))]


@pytest.fixture
def asked(monkeypatch):
    calls = []

    def create_model(name, **options):
        calls.append((name, options))
        if name == "nothing":
            raise RuntimeError("Unknown model (nothing)")
        return Pyramid()

    timm = ModuleType("timm")
    timm.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", timm)
    return calls


def test_the_last_map_is_the_backbones(asked):
    backbone = TimmBackbone("resnet50")
    assert asked == [("resnet50", {"pretrained": False, "features_only": True, "output_stride": 8})]
    assert (backbone.channels, backbone.stride) == (12, 8)
    images = torch.rand(1, 3, 16, 24)
    backbone.eval()
    assert torch.equal(backbone(images), backbone.model.norm(backbone.model.conv(images)))


def test_deeplab_stands_on_it(asked):
    network = DeepLab(replace(SMALL, backbone="timm/resnet50"))
    logits, features = network(torch.rand(1, 3, 16, 24))
    assert logits.shape == (1, 19, 2, 3)
    assert features.shape == (1, 76, 2, 3)
    assert network.stride == 8


def test_its_batch_norm_obeys_the_same_option(asked):
    for option, trained, moving in [
        ("trained", True, True),
        ("affine_frozen", False, True),
        ("frozen", False, False),
    ]:
        norm = TimmBackbone("resnet50", batch_norm=option).train().model.norm
        assert (norm.weight.requires_grad, norm.training) == (trained, moving)


def test_weights_named_as_in_timm_fill_it_and_say_nothing_of_caffe(asked, tmp_path):
    donor, path = Pyramid(), tmp_path / "resnet50.pth"
    torch.save(donor.state_dict(), path)
    network = DeepLab(replace(SMALL, backbone="timm/resnet50"))
    report = load_weights(network, path)
    assert torch.equal(network.backbone.model.conv.weight, donor.conv.weight)
    assert report.unexpected == report.mismatched == ()
    assert report.warnings == (
        "files named as in torchvision or timm usually go with normalisation='imagenet', "
        "the network has 'caffe'",
    )


def test_an_unknown_name_is_refused(asked):
    sentence = (
        "TimmBackbone: expected a feature network of timm at output stride 8, got 'nothing' "
        "(Unknown model (nothing)). Hint: timm.list_models() lists the names."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        TimmBackbone("nothing")


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ImportError("No module named 'timm'"), "ImportError: No module named 'timm'"),
        (
            RuntimeError("operator torchvision::nms does not exist"),
            "RuntimeError: operator torchvision::nms does not exist",
        ),
    ],
)
def test_a_missing_timm_is_named(monkeypatch, error, found):
    def fail(name):
        raise error

    monkeypatch.setattr("reference.networks.timm_backbone.importlib.import_module", fail)
    sentence = (
        f"TimmBackbone: expected timm and torchvision to be importable, got {found}. Hint: install "
        "protocontrast[backbones] and the torchvision that belongs to the installed torch, or "
        'choose the backbone "resnet101", which needs neither.'
    )
    with pytest.raises(ImportError, match=f"^{re.escape(sentence)}$"):
        DeepLab(replace(SMALL, backbone="timm/resnet50"))
