"""The small parts on a device: as on the CPU, with torch's deterministic forms, without waiting."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import protocontrast as pc
from tests.gpu.test_contracts import waiting_is_an_error
from tests.test_small_losses import LOSSES, PROTOTYPES, scene

SHARES = (3 * torch.randn(2, 5, 40, 30, generator=torch.Generator().manual_seed(0))).softmax(1)
OTHERS = torch.rand(2, 5, 40, 30, generator=torch.Generator().manual_seed(1))
LABELS = torch.randint(0, 5, (2, 40, 30), generator=torch.Generator().manual_seed(2))
LEAST = torch.tensor([0.4, 0.5, 0.6, 0.7, 0.8])
CHOSEN = torch.tensor([True, False, True, False, True])


def _thresholds(shares: Tensor) -> tuple[Tensor, ...]:
    thresholds = pc.ClassThresholds(5, share=0.3, momentum=0.5).to(shares.device)
    thresholds.update(shares)
    thresholds.update(shares.flip(0))
    return thresholds.thresholds(), thresholds.mass


CALLS: dict[str, Callable[..., Any]] = {
    "rectify": lambda shares, others, labels, least, chosen: [pc.rectify(shares, others)],
    "sinkhorn": lambda shares, others, labels, least, chosen: [pc.sinkhorn(others)],
    "select_labels": lambda shares, others, labels, least, chosen: pc.select_labels(
        shares, least, image_share=0.2
    ),
    "confident_share": lambda shares, others, labels, least, chosen: [
        pc.confident_share(shares, 0.8)
    ],
    "frequency_weights": lambda shares, others, labels, least, chosen: [
        pc.frequency_weights(least)
    ],
    "class_mix": lambda shares, others, labels, least, chosen: pc.class_mix(
        shares, labels, others, labels, num_classes=5, classes=chosen
    ),
    "ClassThresholds": lambda shares, others, labels, least, chosen: _thresholds(shares),
}
DRAWINGS: dict[str, Callable[..., Any]] = {
    "class_mix": lambda labels, generator: pc.class_mix(
        labels[:, None], labels, labels[:, None], labels, num_classes=5, generator=generator
    ),
    "random": lambda labels, generator: pc.sample_pixels(labels, 50, generator=generator),
    "hard_easy": lambda labels, generator: pc.sample_pixels(
        labels, 50, mode="hard_easy", num_classes=5, predictions=labels.flip(0), generator=generator
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    values = SHARES, OTHERS, LABELS, LEAST, CHOSEN
    found = CALLS[name](*(value.cuda() for value in values))
    for there, here in zip(found, CALLS[name](*values), strict=True):
        torch.testing.assert_close(there.cpu(), here)


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    results = []
    for device in ("cpu", "cuda"):
        values, labels = scene(0, torch.float32)
        leaf = values.to(device).requires_grad_()
        loss = LOSSES[name](leaf, labels.to(device))
        results.append((loss.detach().cpu(), torch.autograd.grad(loss, leaf)[0].cpu()))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_generator_of_the_cpu_draws_the_same_everywhere(name: str) -> None:
    here, there = (
        DRAWINGS[name](LABELS.to(device), torch.Generator().manual_seed(7))
        for device in ("cpu", "cuda")
    )
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one, other.cpu())


@pytest.mark.parametrize("name", [*CALLS, *DRAWINGS, *LOSSES])
def test_the_host_never_waits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_small_losses.PROTOTYPES", PROTOTYPES.float().cuda())
    values = [value.cuda() for value in (SHARES, OTHERS, LABELS, LEAST, CHOSEN)]
    generator = torch.Generator("cuda")
    logits, labels = (value.cuda() for value in scene(0, torch.float32))
    if name == "ClassThresholds":
        thresholds = pc.ClassThresholds(5).cuda()
        with waiting_is_an_error():
            thresholds.update(values[0])
            thresholds.select(values[0])
        return
    with waiting_is_an_error():
        if name in LOSSES:
            LOSSES[name](logits, labels)
        elif name in DRAWINGS:
            DRAWINGS[name](values[2], generator)
        else:
            CALLS[name](*values)


def test_a_label_that_is_no_class_is_never_an_index() -> None:
    labels = torch.tensor([0, 3, -1, 2**33, 255], device="cuda")
    logits = torch.zeros(5, 3, device="cuda")
    loss = pc.symmetric_cross_entropy(logits, labels, reduction="none")
    assert loss.isnan().tolist() == [False, True, True, True, False]
    sample = pc.sample_pixels(labels, 4, mode="per_class", num_classes=3, min_pixels=1)
    assert sample.labels.tolist() == [0, 255, 255, 255]
    images = torch.zeros(1, 1, 1, 5, device="cuda")
    whole = torch.ones(3, dtype=torch.bool, device="cuda")
    row = labels.reshape(1, 1, 5)
    mix = pc.class_mix(images, row, images, row, num_classes=3, classes=whole)
    assert mix.mask.flatten().tolist() == [True, False, False, False, False]
