"""What holds of every loss on predictions and prototypes: weights, dtypes, tracing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from protocontrast import (
    entropy,
    mrkld,
    prototype_pull,
    similarity_kl,
    spread,
    symmetric_cross_entropy,
)
from tests.differentiable import outcome
from tests.strategies import label_map, normal
from tests.tolerance import assert_within

# Numbers that every dtype holds, so that a narrow call means the same as a wide one.
PROTOTYPES = normal(99, (3, 4)).bfloat16().double()
Loss = Callable[..., Tensor]


def _kl(values: Tensor, labels: Tensor, **settings: object) -> Tensor:
    target = (torch.arange(values.numel(), device=values.device) * 0.7).sin().bfloat16()
    return similarity_kl(values, target.reshape(values.shape).to(values.dtype), **settings)


def _pull(values: Tensor, labels: Tensor, **settings: object) -> Tensor:
    return prototype_pull(values, labels, PROTOTYPES.to(values), **settings)


def _spread(values: Tensor, labels: Tensor, **settings: object) -> Tensor:
    return spread(values, labels, PROTOTYPES.to(values), toward="uniform", temperature=1.0)


LOSSES: dict[str, Loss] = {
    "entropy": lambda values, labels, **rest: entropy(values, **rest),
    "mrkld": lambda values, labels, **rest: mrkld(values, **rest),
    "similarity_kl": _kl,
    "symmetric_cross_entropy": symmetric_cross_entropy,
    "prototype_pull": _pull,
    "spread": _spread,
}
SLOW = pytest.mark.slow
WEIGHTED = [name for name in LOSSES if name != "spread"]


def scene(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Four channels, that are four classes or the features' width, and labels of three."""
    return normal(seed, (2, 4, 3, 2), dtype), label_map(seed, (2, 3, 2), 3)


@pytest.mark.parametrize("name", WEIGHTED)
def test_reductions_agree(name: str) -> None:
    values, labels = scene()
    weight = torch.linspace(0, 2, 12).reshape(2, 3, 2)
    each, total, mean = (
        LOSSES[name](values, labels, pixel_weight=weight, reduction=reduction)
        for reduction in ("none", "sum", "mean")
    )
    assert each.shape == (2, 3, 2)
    torch.testing.assert_close(each.sum(), total)
    counted = weight.double()
    if name in ("symmetric_cross_entropy", "prototype_pull"):
        counted = torch.where(labels == 255, 0, counted)
    torch.testing.assert_close(mean, total / counted.sum())


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_weight_is_a_repetition(name: str) -> None:
    values, labels = scene()
    rows, flat = values.movedim(1, -1).flatten(0, 2), labels.flatten()
    times = torch.arange(12) % 3
    repeated = rows.repeat_interleave(times, dim=0), flat.repeat_interleave(times)
    if name == "similarity_kl":
        target = normal(5, (12, 4))
        expected = similarity_kl(repeated[0], target.repeat_interleave(times, dim=0))
        found = similarity_kl(rows, target, pixel_weight=times.double())
    else:
        expected = LOSSES[name](*repeated)
        found = LOSSES[name](rows, flat, pixel_weight=times.double())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name: str) -> None:
    values, labels = scene()
    assert torch.autograd.gradcheck(
        lambda leaf: LOSSES[name](leaf, labels), values.requires_grad_()
    )


@pytest.mark.parametrize("name", WEIGHTED)
def test_ignored_pixels_may_be_anything(name: str) -> None:
    values, labels = scene()
    weight = (torch.arange(12).reshape(2, 3, 2) % 4 > 0).double()
    ignored = weight == 0
    if name in ("symmetric_cross_entropy", "prototype_pull"):
        ignored |= labels == 255
    results = []
    for filler in (0.0, torch.nan, torch.inf):
        leaf = torch.where(ignored[:, None], filler, values).requires_grad_()
        loss = LOSSES[name](leaf, labels, pixel_weight=weight)
        (gradient,) = torch.autograd.grad(loss, leaf)
        results.append((loss.detach(), gradient))
    for loss, gradient in results:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])
        assert not gradient.movedim(1, -1)[ignored].any()
        assert gradient.any()


@pytest.mark.parametrize("name", LOSSES)
def test_nan_in_nan_out(name: str) -> None:
    values, labels = scene()
    labels[1, 2, 1] = 0
    values[1, :, 2, 1] = torch.nan
    assert LOSSES[name](values, labels).isnan()


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_valid_is_zero_with_a_graph(name: str) -> None:
    values, labels = scene()
    settings = {"pixel_weight": torch.zeros(2, 3, 2)} if name in WEIGHTED else {}
    leaf = values.requires_grad_()
    loss = LOSSES[name](leaf, torch.full_like(labels, 255), **settings)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert loss.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_inputs_are_read_in_float32(name: str, dtype: torch.dtype) -> None:
    values, labels = scene(0, dtype)
    leaf = values.clone().requires_grad_()
    loss = LOSSES[name](leaf, labels)
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert gradient.dtype == dtype
    plain = LOSSES[name](values.float(), labels)
    assert_within(loss, plain, LOSSES[name](values.double(), labels), scale=10.0)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("spread", "symmetric_cross_entropy") else pytest.param(name, marks=SLOW)
        for name in LOSSES
    ],
)
def test_compiled_in_one_graph(name: str) -> None:
    torch.compiler.reset()
    values, labels = scene(0, torch.float32)
    traced = torch.compile(LOSSES[name], fullgraph=True, backend="aot_eager")
    for some in (labels, torch.where(labels == 255, 0, labels), torch.full_like(labels, 255)):
        found, expected = (outcome(call, (values, some), [0]) for call in (traced, LOSSES[name]))
        torch.testing.assert_close(found, expected)
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["symmetric_cross_entropy", "prototype_pull"])
def test_a_label_that_is_no_class_on_a_device_spoils_the_loss(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where values are not checked, as on a GPU, a wrong label must not pass for a right one."""
    values, labels = scene()
    labels[0, 0, 0] = 9
    where = "protocontrast.functional.pixels.checked_labels"
    monkeypatch.setattr(where, lambda labels, *rest: labels.clone())
    assert LOSSES[name](values, labels).isnan()
