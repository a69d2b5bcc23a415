"""The step of docs/extending.md with a network of segmentation-models-pytorch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("segmentation_models_pytorch")

from tests.extending_blocks import half_ignored, run, scenes


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    torch.manual_seed(0)
    found = run("segmentation-models-pytorch")
    # Random features are sure of nothing.
    found["bicl"].threshold = 0.0
    return found


def pictures(seed: int, shift: float = 0.0) -> list[torch.Tensor]:
    """Images of 64 x 64, which five halvings still leave something of, and labels."""
    return [
        value.repeat_interleave(2, -1).repeat_interleave(2, -2) for value in scenes(seed, 2, shift)
    ]


def test_the_step_is_the_loss_of_the_whole_network_and_the_contrast(names: dict[str, Any]) -> None:
    model, bicl = names["model"], names["bicl"]
    # Batch statistics and dropout would answer another call differently.
    model.eval()
    images, labels = pictures(1)
    labels = half_ignored(labels)
    target = pictures(2, shift=0.1)[0].requires_grad_()
    images.requires_grad_()
    whole = F.cross_entropy(model(images.detach()), labels, ignore_index=255)
    features = [model.decoder(model.encoder(x.detach())) for x in (images, target)]
    contrast = copy.deepcopy(bicl)(features[0], labels, features[1]).loss
    expected = (whole + 0.1 * contrast).detach()
    torch.testing.assert_close(names["step"](images, labels, target), expected)
    assert contrast > 0
    assert images.grad[1].abs().sum() == 0  # all of its labels are ignored
    assert target.grad.abs().sum() > 0
    known = torch.zeros(19, dtype=torch.bool)
    known[labels[labels != 255].unique()] = True
    assert torch.equal(bicl.source_bank.present, known)


def test_the_loss_falls(names: dict[str, Any]) -> None:
    names["model"].train()
    names["optimiser"].param_groups[0]["lr"] = 1e-3
    (images, labels), target = pictures(1), pictures(2, shift=0.1)[0]
    losses = [float(names["step"](images, labels, target)) for _ in range(8)]
    assert losses[-1] < 0.7 * losses[0]
    assert names["bicl"].target_bank.present.any()
