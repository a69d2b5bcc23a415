"""What is not finite reaches its own class and channel alone, and nothing from an ignored pixel."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import (
    class_prototypes,
    class_statistics,
    distribution_contrast,
    pair_contrast,
    pixel_prototype_contrast,
)
from protocontrast.eager.class_prototypes import add_marked
from protocontrast.eager.lengths import unit_columns
from tests.agreement import widened
from tests.strategies import NAN, label_map, normal, seeds, soft_map
from tests.target_passes import target_pass

BACKENDS = ["eager"]
KINDS = torch.tensor([NAN, float("inf"), -float("inf")])
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def sprinkled(features: Tensor, ignored: Tensor, seed: int, used: float) -> Tensor:
    """A share of the elements (B, D, P) of pixels that are used, and many of those ignored."""
    random = torch.Generator().manual_seed(seed)
    share = torch.where(ignored, torch.rand(ignored.shape, generator=random), used)
    chosen = torch.rand(features.shape, generator=random) < share[:, None]
    kinds = KINDS[torch.randint(3, features.shape, generator=random)]
    return torch.where(chosen, kinds, features).to(features.dtype)


@st.composite
def calls(draw: st.DrawFn, used: float = 0.04) -> dict[str, Any]:
    """Labels of 4 classes, 255 and weights of 0 among them, and as few of NaN."""
    seed, dtype = draw(seeds), draw(st.sampled_from(DTYPES))
    images, pixels = draw(st.sampled_from([(1, 40), (2, 17)]))
    labels = label_map(seed, (images, pixels), 4)
    weight = None
    if draw(st.booleans()):
        weight = torch.randint(0, 3, labels.shape, generator=torch.Generator().manual_seed(seed))
        lost = torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed + 1)) < used
        weight = torch.where(lost, NAN, weight.float())
    ignored = labels == 255 if weight is None else (labels == 255) | (weight == 0)
    features = normal(seed, (images, draw(st.sampled_from([3, 34])), pixels), dtype)
    return {
        "features": sprinkled(features, ignored, seed, used),
        "labels": labels,
        "num_classes": 4,
        "pixel_weight": weight,
    }


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal where infinite, NaN where NaN, and about equal where finite."""
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
@given(call=calls(), normalize=st.booleans(), per_image=st.booleans())
def test_in_class_means(
    backend: str, call: dict[str, Any], normalize: bool, per_image: bool
) -> None:
    call = {**call, "normalize": normalize, "per_image": per_image}
    found = class_prototypes(**call, backend=backend)
    expected = class_prototypes(**widened(call), backend="naive")
    assert_same(found.mean, expected.mean)
    assert_same(found.count, expected.count)


@given(call=calls(), normalize=st.booleans())
def test_in_class_statistics(call: dict[str, Any], normalize: bool) -> None:
    found = class_statistics(**call, normalize=normalize)
    expected = class_statistics(**widened(call), normalize=normalize, backend="naive")
    assert_same(found.mean, expected.mean)
    assert_same(found.variance, expected.variance)


@pytest.mark.parametrize("backend", BACKENDS)
@given(call=calls(), normalize=st.booleans())
def test_in_the_means_of_a_target_pass(backend: str, call: dict[str, Any], normalize: bool) -> None:
    features = call["features"]
    given = {
        "features": features,
        "prototypes": normal(3, (4, features.shape[1]), torch.float64),
        "present": torch.ones(4, dtype=torch.bool),
        "counted": torch.ones(4, dtype=torch.bool),
        "static": call["labels"],
        "threshold": 2.0,
        "normalize": normalize,
    }
    found = target_pass(**given, backend=backend)
    expected = target_pass(**widened(given), backend="naive")
    assert torch.equal(found.labels, expected.labels)
    assert_same(found.prototypes.mean, expected.prototypes.mean)


@pytest.mark.parametrize("normalize", [False, True])
@given(call=calls())
def test_in_the_sums_of_the_path_without_the_host(normalize: bool, call: dict[str, Any]) -> None:
    """On a GPU no value may decide the path; its sums equal those of the CPU's careful path."""
    features, labels = call["features"][0].float(), call["labels"][0]
    weight = torch.ones(len(labels)) if call["pixel_weight"] is None else call["pixel_weight"][0]
    member = torch.where(labels == torch.arange(4)[:, None], weight, 0)
    total = torch.zeros(4, len(features))
    add_marked(total, member, unit_columns(features) if normalize else features)
    careful = class_prototypes(
        features.t(), labels, 4, pixel_weight=weight, normalize=normalize, backend="naive"
    )
    assert_same(total, (careful.mean * careful.count[:, None]).double())


def gradients_of_rows(name: str, call: dict[str, Any], similarity: str, backend: str) -> Any:
    """Of the rows that pixels are pulled to: prototypes and variances, or keys."""
    rows = call["prototypes"].detach().requires_grad_()
    spread = call["prototypes"].detach().square().requires_grad_()
    features, labels, weight = call["features"], call["labels"], call["pixel_weight"]
    settings = {"temperature": 5.0, "reduction": "sum", "backend": backend}
    if name == "distribution":
        loss = distribution_contrast(
            features, labels, rows, spread, pixel_weight=weight, **settings
        )
    elif name == "pairs":
        kept = labels[0] if weight is None else torch.where(weight[0] == 0, 255, labels[0])
        keys = rows, torch.arange(4)
        loss = pair_contrast(features[0].t(), kept, *keys, similarity=similarity, **settings)
    else:
        loss = pixel_prototype_contrast(
            features, labels, rows, pixel_weight=weight, similarity=similarity, **settings
        )
    return torch.autograd.grad(loss, [rows, spread], materialize_grads=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["contrast", "distribution", "pairs"])
@given(
    call=calls(used=0.0),
    similarity=st.sampled_from(["cosine", "dot", "euclidean"]),
    soft=st.booleans(),
)
def test_not_from_ignored_pixels_to_the_rows_that_others_are_pulled_to(
    name: str, backend: str, call: dict[str, Any], similarity: str, soft: bool
) -> None:
    labels = call["labels"]
    if soft and name != "pairs":
        masses = soft_map(5, tuple(labels.shape), 4, "full")
        call["labels"] = torch.where((labels == 255)[:, None], 0, masses)
    call["prototypes"] = normal(3, (4, call["features"].shape[1]), torch.float64)
    found = gradients_of_rows(name, call, similarity, backend)
    expected = gradients_of_rows(name, widened(call), similarity, "naive")
    for mine, other in zip(found, expected, strict=True):
        assert torch.isfinite(other).all()
        scale = float(other.detach().abs().max().clamp_min(1))
        torch.testing.assert_close(mine.double(), other, rtol=0, atol=2e-2 * scale)


@pytest.mark.parametrize("backend", [*BACKENDS, "naive"])
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("wrong", [3e38, float("inf"), -float("inf"), NAN])
def test_a_pixel_with_an_infinite_logit_has_no_finite_loss(
    wrong: float, classes: int, soft: bool, similarity: str, backend: str
) -> None:
    """NaN but for infinite distances in kernels, and never the 0 of a class that stands alone."""
    features, rows = normal(0, (5, 3), torch.float32), normal(1, (classes, 3), torch.float32) * 9
    features[0, 0] = wrong
    labels: Tensor = torch.arange(5) % classes
    if soft:
        labels = torch.nn.functional.one_hot(labels, classes).float()
    loss = pixel_prototype_contrast(
        features, labels, rows, similarity=similarity, reduction="none", backend=backend
    )
    assert loss[1:].isfinite().all()
    if similarity != "cosine" or wrong != 3e38:
        assert loss[0].isnan() or (loss[0].isinf() and backend == "triton")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize("similarity", ["dot", "euclidean", "cosine"])
@pytest.mark.parametrize("wrong", [float("inf"), -float("inf"), NAN])
def test_pairs_with_an_infinite_row_lose_what_the_equation_says(
    wrong: float, similarity: str, denominator: str, backend: str
) -> None:
    """An anchor that meets an infinite score says infinity or NaN as `naive` does."""
    labels, others = torch.tensor([0, 1, 0, 2, 1]), torch.tensor([0, 1, 2, 0, 1, 1])
    for place in ("anchors", "keys", "negatives"):
        rows = {"anchors": (5, 0), "keys": (6, 1), "negatives": (6, 2)}
        given = {name: normal(seed, (n, 3), torch.float32) for name, (n, seed) in rows.items()}
        given[place][0, 1] = wrong
        call: dict[str, Any] = {**given, "anchor_labels": labels, "key_labels": others}
        call |= {"similarity": similarity, "denominator": denominator, "reduction": "none"}
        call["negative_labels"] = others
        if place != "negatives":
            del call["negatives"], call["negative_labels"]
        found = pair_contrast(**call, backend=backend)
        assert_same(found, pair_contrast(**call, backend="naive").double())


@pytest.mark.parametrize("backend", [*BACKENDS, "naive"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_far_away_hides_no_distance_of_others(dtype: torch.dtype, backend: str) -> None:
    anchors, keys = normal(0, (5, 3), dtype), normal(1, (6, 3), dtype)
    keys[2] = 1e30
    labels, others = torch.tensor([0, 1, 0, 2, 1]), torch.tensor([0, 1, 3, 0, 1, 1])
    settings: dict[str, Any] = {"similarity": "euclidean", "reduction": "none", "backend": backend}
    # A negative so far away weighs nothing.
    near = others != 3
    for rows in (anchors, keys):
        rows.requires_grad_()
    with_it = pair_contrast(anchors, labels, keys, others, **settings)
    without = pair_contrast(anchors, labels, keys[near], others[near], **settings)
    torch.testing.assert_close(with_it, without)
    for mine, other in zip(
        torch.autograd.grad(with_it.sum(), (anchors, keys)),
        torch.autograd.grad(without.sum(), (anchors, keys)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)
