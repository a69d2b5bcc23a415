"""Batches of blocks, and what a method is given, for any network: steps without a loop."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import torch
from torch import nn

from reference.bicl import BiCL
from reference.data.batches import Batch
from reference.data.classes import IGNORE
from reference.method import Given, Losses, Method, Start, Step
from reference.methods import build
from reference.networks.deeplab import DeepLab, DeepLabOptions
from reference.networks.output import Segmenter, seeded
from reference.run.ranks import Ranks
from reference.settings import AdaptationStage, Contrast
from tests.reference.small_networks import build_network

ALONE = Ranks()
NAMES = ("road", "person", "car", "sky", "pole", "bus", *(f"class {n}" for n in range(6, 19)))


def toy(classes: int = 3, dim: int = 8) -> Segmenter:
    """The toy's network, 8 channels wide."""
    return build_network(
        seed=0, stem_width=8, near_width=8, far_width=8, dilations=(1,), num_classes=classes,
        feature_dim=dim,
    )  # fmt: skip


def deeplab(classes: int = 3) -> Segmenter:
    """A DeepLab of 14 layers, 8 channels wide."""
    options = DeepLabOptions(backbone="resnet14", width=8, num_classes=classes)
    with seeded(0):
        return DeepLab(options)


def given(network: Segmenter, *, stage: AdaptationStage | None = None, seed: int = 0) -> Given:
    """What a method is built from; the first class has the most pixels."""
    classes = network.num_classes
    counts = torch.arange(classes, 0, -1, dtype=torch.float64)
    return Given(network, stage or AdaptationStage(), seed, lambda: counts, NAMES[:classes])


def drawn(
    seed: int, size: tuple[int, int], classes: int, *, number: int = 2, labels: bool = True
) -> Batch:
    """Images of blocks of classes, in a shade each, with some noise; a corner has no label."""
    random = torch.Generator().manual_seed(seed)
    height, width = size
    coarse = torch.randint(classes, (number, 1, 3, 4), generator=random).float()
    known = torch.nn.functional.interpolate(coarse, size, mode="nearest")[:, 0].long()
    shades = torch.linspace(0.2, 0.8, classes)[known][:, None]
    noise = 0.1 * torch.rand(number, 3, height, width, generator=random)
    known[:, : height // 8, : width // 8] = IGNORE
    images = shades + noise
    return Batch(images, known if labels else None, torch.arange(number), 1 - images)


def step_of(
    network: Segmenter, index: int, *, size: tuple[int, int] = (32, 48), steps: int = 4,
    part: int = 0, seed: int = 0, ranks: Ranks = ALONE, kind: Callable[..., Step] = Step,
    **changed: Any,
) -> Step:  # fmt: skip
    """A step on blocks, whose images follow from index, part and rank."""
    classes, first = network.num_classes, 100 * index + 10 * ranks.rank + part
    source = drawn(first, size, classes)
    target = drawn(first + 50, size, classes, labels=False)
    labelled = (source.labels != IGNORE).sum().double()
    values = {
        "source": source, "target": target, "round_index": 0, "ranks": ranks,
        "autocast": contextlib.nullcontext, "counts": (labelled, torch.ones(()).double()),
    } | changed  # fmt: skip
    return kind(network=network, index=index, steps=steps, part=part, seed=seed, **values)


NEAR = Contrast(measure="similarity", threshold=0.1, temperature=0.5)
SWITCHES: dict[str, dict[str, Any]] = {
    "balance": {"balance": "class"}, "agree": {"agree": True}, "coverage": {"class_coverage": 0.5},
    "prior": {"prior": 0.5, "measure": "confidence"}, "teacher": {"teacher": True},
    "warm-up": {"warmup": 7}, "projection": {"projection": True},
}  # fmt: skip
"""Of BiCL, beyond the paper."""
SWITCHES["all"] = {name: value for one in SWITCHES.values() for name, value in one.items()}


def bicl_of(network: Segmenter, contrast: Contrast = NEAR, **changes: Any) -> BiCL:
    """BiCL with some of its settings changed."""
    stage = AdaptationStage(contrast=replace(contrast, **changes))
    return BiCL(given(network, stage=stage)).train()


def saved(*modules: nn.Module | torch.optim.Optimizer) -> list[dict]:
    """State dicts as a checkpoint holds them."""
    file = BytesIO()
    torch.save([module.state_dict() for module in modules], file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def begin(
    method: Method, network: Segmenter, *, size: tuple[int, int] = (32, 48), number: int = 3,
    device: str = "cpu", ranks: Ranks = ALONE,
) -> Method:  # fmt: skip
    """Let a method look at `number` whole images of either domain, one at a time.

    Tensors that it makes without a word on where lie on `device`.
    """

    source, target = (
        [drawn(first + i, size, network.num_classes, number=1, labels=known) for i in range(number)]
        for first, known in ((1000, True), (2000, False))
    )
    start = Start(
        network.eval(), lambda: iter(source), lambda: iter(target), contextlib.nullcontext, ranks
    )
    with torch.device(device):
        method.begin(start)
    network.train()
    return method


def begun(name: str, network: Segmenter, **sizes: Any) -> Method:
    """A method of the registry before its first step."""
    return begin(build(name, given(network)).train(), network, **sizes)


def advance(
    method: Method, network: Segmenter, optimiser: torch.optim.Optimizer, steps: list[Step],
    by: nn.Module | None = None,
) -> list[Losses]:  # fmt: skip
    """One step of the loop, of one or more parts; `by` computes it over several ranks."""
    optimiser.zero_grad()
    losses = []
    for step in steps:
        more = step is not steps[-1]
        with by.no_sync() if more and hasattr(by, "no_sync") else contextlib.nullcontext():
            done = (by or method)(step)
            (torch.stack([*done.terms.values()]).sum() / len(steps)).backward()
        losses.append(done)
    optimiser.step()
    method.after(network, steps[0].ranks)
    return losses


def optimiser_of(method: Method, network: Segmenter) -> torch.optim.Optimizer:
    """AdamW over what the loop trains."""
    return torch.optim.AdamW([*network.parameters(), *method.trained()], lr=1e-3)
