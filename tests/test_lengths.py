"""Lengths from 1e-30 to 1e30: values and every gradient are those of float64, row by row."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import protocontrast as pc
from tests.strategies import label_map, normal, seeds
from tests.target_passes import target_pass

BACKENDS = ["eager", "naive"]
DTYPES = (torch.float32, torch.float32, torch.bfloat16)
CHANNELS, CLASSES, PIXELS = 5, 3, 9
KINDS = ("one", "mixed", "mixed", "spiked", "zeros")


class Lengths(NamedTuple):
    """How long rows are: all 10^exponent, each its own, one channel far above the rest, some 0."""

    seed: int
    kind: str = "one"
    exponent: float = 0.0

    def rows(self, count: int, dtype: torch.dtype) -> Tensor:
        """(count, CHANNELS) random directions."""
        unit = torch.nn.functional.normalize(normal(self.seed, (count, CHANNELS)), dim=1)
        generator = torch.Generator().manual_seed(self.seed)
        exponents = torch.rand(count, 1, generator=generator, dtype=torch.float64) * 60 - 30
        if self.kind == "one":
            exponents = torch.full_like(exponents, self.exponent)
        rows = unit * 10**exponents
        if self.kind == "spiked":
            rows[:, 1:] *= 1e-6
        if self.kind == "zeros":
            rows[::3] = 0
        return rows.to(dtype)


@st.composite
def lengths(draw: st.DrawFn) -> Lengths:
    """Rows of every size that float32 holds the inverse of."""
    return Lengths(draw(seeds), draw(st.sampled_from(KINDS)), draw(st.floats(-30, 30)))


def labelled(seed: int, count: int = PIXELS) -> Tensor:
    return label_map(seed, (count,), CLASSES)


def _distribution(features: Tensor, prototypes: Tensor, labels: Tensor, **backend: Any) -> Tensor:
    variance = normal(7, (CLASSES, CHANNELS), prototypes.dtype).abs()
    means = torch.nn.functional.normalize(prototypes.double(), dim=1).to(prototypes.dtype)
    settings = {"temperature": 1.0, "reduction": "none", **backend}
    return pc.distribution_contrast(features, labels, means, variance, **settings)


def _means(features: Tensor, prototypes: Tensor, labels: Tensor, **backend: Any) -> Tensor:
    rows = torch.cat([features, prototypes])
    classes = torch.cat([labels, torch.arange(CLASSES)])
    return pc.class_prototypes(rows, classes, CLASSES, normalize=True, **backend).mean


def _pass(features: Tensor, prototypes: Tensor, labels: Tensor, **backend: Any) -> Tensor:
    everything = torch.ones(CLASSES, dtype=torch.bool)
    passed = target_pass(
        features, prototypes.detach(), present=everything, counted=everything, static=labels,
        transfer=False, normalize=True, temperature=1.0, **backend,
    )  # fmt: skip
    return torch.cat([passed.losses, passed.prototypes.mean.flatten()])


def _contrast(
    features: Tensor, prototypes: Tensor, labels: Tensor, reduction: str = "none", **how: Any
) -> Tensor:
    how = {"temperature": 1.0, "reduction": reduction, **how}
    return pc.pixel_prototype_contrast(features, labels, prototypes, **how)


CALLS: dict[str, Callable[..., Tensor]] = {
    "contrast": _contrast,
    "contrast mean": partial(_contrast, reduction="mean"),
    "floor": partial(_contrast, absent="floor"),
    "logits": lambda f, p, y, **backend: pc.prototype_logits(f, p, **backend).nan_to_num(neginf=0),
    "unit class means": _means,
    "pull": lambda f, p, y, **backend: pc.prototype_pull(f, y, p, reduction="none", **backend),
    "pairs": lambda f, p, y, **backend: pc.pair_contrast(
        f, y, p, torch.arange(CLASSES), temperature=1.0, reduction="none", **backend
    ),
    "distribution": _distribution,
    "target pass": _pass,
    "spread": lambda f, p, y, **backend: pc.spread(
        f, y, p, toward="uniform", similarity="cosine", temperature=1.0, **backend
    ),
    "bidirectional": lambda f, p, y, **backend: pc.bidirectional_contrast(
        f, y, p.repeat(len(f) // len(p), 1), y.flip(0), num_classes=CLASSES, pairwise=False,
        temperature=1.0, **backend,
    ).loss,
}  # fmt: skip
OF_MEANS = ("spread", "bidirectional")
"""Means of features of all lengths are as long as the longest: shorter ones have no digit in it."""


def _results(call: Callable[..., Tensor], features: Tensor, *rest: Any) -> list[Tensor]:
    prototypes, labels, backend = rest
    leaves = features.requires_grad_(), prototypes.requires_grad_()
    value = call(*leaves, labels, backend=backend)
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    pairs = zip(leaves, found, strict=True)
    given = [torch.zeros_like(leaf) if one is None else one for leaf, one in pairs]
    return [value.detach(), *given]


def assert_near(found: Tensor, truth: Tensor, size: Tensor, tolerance: float) -> None:
    """Finite, and every row within `tolerance` of its largest entry or of the `size` (n,) of terms.

    So a row is exactly 0 where both are 0.
    """
    assert torch.isfinite(found).all()
    rows, expected = (one.double().reshape(len(size), -1) for one in (found, truth))
    scale = torch.maximum(expected.abs().amax(dim=1), size)
    # What is below float32's normal numbers has few digits or none.
    room = tolerance * scale + torch.where(scale > 0, 1e-37, 0)
    assert ((rows - expected).abs() <= room[:, None]).all()


def assert_right(
    name: str, drawn: tuple[Lengths, Lengths], dtype: torch.dtype, backend: str
) -> None:
    call, (first, second) = CALLS[name], drawn
    features, prototypes = first.rows(PIXELS, dtype), second.rows(CLASSES, torch.float32)
    labels = labelled(first.seed)
    truth = _results(call, features.double(), prototypes.double(), labels, "naive")
    found = _results(call, features.clone(), prototypes.clone(), labels, backend)
    # Gradients are rounded to the dtype.
    tolerance = 2e-5 if dtype == torch.float32 else 1e-2
    assert_near(found[0], truth[0], torch.ones(1), 1e-4)
    for rows, ours, expected in zip((features, prototypes), found[1:], truth[1:], strict=True):
        # Slopes of at most 1 are divided by the length, and may cancel in what comes of them.
        length = rows.double().norm(dim=1)
        size = torch.where(length > 0, 1 / length, 0)
        assert_near(ours, expected, size, tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name in CALLS if name not in OF_MEANS])
@given(drawn=st.tuples(lengths(), lengths()), dtype=st.sampled_from(DTYPES))
def test_any_length(
    name: str, drawn: tuple[Lengths, Lengths], dtype: torch.dtype, backend: str
) -> None:
    assert_right(name, drawn, dtype, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OF_MEANS)
@given(seed=seeds, exponent=st.floats(-30, 30))
def test_any_common_length(name: str, seed: int, exponent: float, backend: str) -> None:
    drawn = Lengths(seed, "one", exponent), Lengths(seed + 1, "one", exponent)
    assert_right(name, drawn, torch.float32, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@given(drawn=lengths(), dtype=st.sampled_from(DTYPES))
def test_transfer_sees_directions_alone(drawn: Lengths, dtype: torch.dtype, backend: str) -> None:
    features = drawn.rows(PIXELS, dtype)
    prototypes = Lengths(drawn.seed + 1, "mixed").rows(CLASSES, torch.float32)
    found, truth = (
        pc.transfer_labels(*rows, threshold=-1.0, measure="similarity", backend=backend)
        for rows in ((features, prototypes), (features.double(), prototypes.double()))
    )
    torch.testing.assert_close(found.confidence.double(), truth.confidence, rtol=0, atol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@given(exponent=st.floats(-30, 30), seed=seeds)
def test_euclidean_distances_of_any_scale(exponent: float, seed: int, backend: str) -> None:
    """Also to a prototype at the pixel itself, and to one as far away as float32 reaches."""
    size = 10**exponent
    features = (normal(seed, (PIXELS, CHANNELS)) * size).float()
    prototypes = torch.cat([features[:1], (normal(seed + 1, (2, CHANNELS)) * size).float()])
    prototypes[2] *= min(1e30 / size, 1e10)

    truth = _results(_nearness, features.double(), prototypes.double(), labelled(seed), "naive")
    found = _results(_nearness, features.clone(), prototypes.clone(), labelled(seed), backend)
    for ours, expected, unit in zip(found, truth, (size, 1.0, 1.0), strict=True):
        assert_near(ours, expected, torch.full((len(ours),), unit).double(), 2e-5)


def _nearness(features: Tensor, prototypes: Tensor, labels: Tensor, **backend: Any) -> Tensor:
    how = {"similarity": "euclidean", "temperature": 1.0, **backend}
    return pc.prototype_logits(features, prototypes, **how)


@given(drawn=lengths())
def test_statistics_banks_and_subclasses_see_directions_alone(drawn: Lengths) -> None:
    rows, labels = drawn.rows(PIXELS, torch.float32), labelled(drawn.seed)
    unit = torch.nn.functional.normalize(rows.double(), dim=1, eps=1e-300).float()
    found = pc.class_statistics(rows, labels, CLASSES, normalize=True)
    expected = pc.class_statistics(unit, labels, CLASSES)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    bank = pc.PrototypeBank(CLASSES, CHANNELS, normalize="features")
    bank.update(rows, labels)
    torch.testing.assert_close(bank.prototypes, expected.mean, rtol=1e-5, atol=1e-6)
    kept = pc.PrototypeBank(CLASSES, CHANNELS, normalize="prototypes", momentum=0.0)
    kept.update(rows[:1], torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(kept.prototypes[0], unit[0], rtol=1e-5, atol=1e-6)
    prototypes = normal(1, (CLASSES, 2, CHANNELS), torch.float32)
    of_rows, of_units = (pc.assign_subclasses(one, labels, prototypes) for one in (rows, unit))
    # Equal shares may tie to the last digits: what a rounding of the features decides is left out.
    settled = torch.ones_like(labels, dtype=torch.bool)
    for seed in range(8):
        rounded = unit + 1e-6 * normal(seed, unit.shape, torch.float32)
        settled &= pc.assign_subclasses(rounded, labels, prototypes) == of_units
    assert torch.equal(of_rows[settled], of_units[settled]) and settled.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_length_stays_in_its_row(value: float, backend: str) -> None:
    """Beside lengths that have to be scaled, too."""
    features = Lengths(0, "mixed").rows(PIXELS, torch.float32)
    features[4, 2] = value
    prototypes = normal(1, (CLASSES, CHANNELS), torch.float32)
    labels = torch.zeros(PIXELS, dtype=torch.int64)
    spoilt = torch.arange(PIXELS) == 4
    value_of, to_features, _ = _results(_contrast, features, prototypes, labels, backend)
    assert torch.equal(value_of.isnan(), spoilt)
    assert torch.equal(to_features.isnan().any(dim=1), spoilt)


@pytest.mark.parametrize("backend", BACKENDS)
@given(exponent=st.floats(-150, 150), seed=seeds)
def test_float64_reaches_further(exponent: float, seed: int, backend: str) -> None:
    """A direction has no length, so the gradient times the length does not depend on it."""
    unit = torch.nn.functional.normalize(normal(seed, (PIXELS, CHANNELS)), dim=1)
    prototypes = normal(seed + 1, (CLASSES, CHANNELS))
    size, labels = 2.0 ** int(exponent * 3.3), labelled(seed)
    found = _results(_contrast, unit * size, prototypes * size, labels, backend)
    expected = _results(_contrast, unit, prototypes, labels, backend)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-14)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours * size, theirs, rtol=1e-11, atol=1e-13)
