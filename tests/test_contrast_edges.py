"""`pixel_prototype_contrast` where pixels, classes or weights drop out."""

import math

import pytest
import torch
from torch import Tensor

from protocontrast import pixel_prototype_contrast
from tests.strategies import NAN, ContrastCase, normal
from tests.tolerance import assert_within

BACKENDS = ["eager", "naive"]


def gradients(loss: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss.sum(), tensors)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("soft", [False, True])
def test_weight_zero_is_ignored_to_the_bit(soft: bool, backend: str) -> None:
    case = ContrastCase(3, (2, 7, 3, 5), 4, label_kind="full", soft=soft)
    call = case.tensors()
    dropped = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    features = torch.where(dropped[:, None], NAN, call["features"]).requires_grad_()
    ignoring = torch.where(
        dropped[:, None] if soft else dropped, 0 if soft else 255, call["labels"]
    )
    results = []
    for labels, weight in ((call["labels"], (~dropped).float()), (ignoring, None)):
        loss = pixel_prototype_contrast(
            features, labels, call["prototypes"], pixel_weight=weight, backend=backend
        )
        results.append((loss, *gradients(loss, features)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert (results[0][1].movedim(1, -1)[dropped] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("soft", [False, True])
def test_a_pixel_without_mass_may_have_any_weight(soft: bool, backend: str) -> None:
    """Confidences of unreadable pixels are NaN, and a class without pixels has weight 1 / 0."""
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]]) if soft else torch.tensor([0, 255])
    loss = pixel_prototype_contrast(
        torch.tensor([[1.0, 2.0], [3.0, 1.0]]),
        labels,
        torch.eye(2),
        pixel_weight=torch.tensor([2.0, NAN]),
        class_weight=torch.tensor([1.0, math.inf]),
        backend=backend,
    )
    assert loss.item() == pytest.approx(math.log1p(math.exp(10 / math.sqrt(5))), rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("settings", [{"class_weight": torch.tensor([1.0, 0.0])}, {}])
def test_soft_targets_of_classes_without_weight_are_never_read(
    settings: dict[str, Tensor], backend: str
) -> None:
    present = None if settings else torch.tensor([True, False])
    targets = torch.tensor([[2.0, NAN], [0.0, NAN]])
    features = torch.tensor([[1.0, 2.0], [NAN, 1.0]])
    loss = pixel_prototype_contrast(
        features, targets, torch.eye(2), present=present, backend=backend, **settings
    )
    expected = 0 if present is not None else math.log1p(math.exp(10 / math.sqrt(5)))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("present", [4, 1])
def test_a_pixel_of_zero_length_is_equally_far_from_all(present: int, backend: str) -> None:
    mask = torch.arange(4) < present
    features = torch.zeros(3, 5, requires_grad=True)
    prototypes = normal(0, (4, 5), torch.float32).requires_grad_()
    labels = torch.zeros(3, dtype=torch.int64)
    loss = pixel_prototype_contrast(features, labels, prototypes, present=mask, backend=backend)
    assert loss.item() == pytest.approx(math.log(present), abs=1e-6)
    for gradient in gradients(loss, features, prototypes):
        assert (gradient == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_at_zero_distance_the_gradient_is_zero(backend: str) -> None:
    features = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    prototypes = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    two = torch.cat([prototypes, prototypes + torch.tensor([[3.0, 4.0]])])
    loss = pixel_prototype_contrast(
        features[:1], torch.tensor([0]), two, similarity="euclidean", temperature=5.0,
        backend=backend,
    )  # fmt: skip
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)), rel=1e-12)
    (to_features,) = torch.autograd.grad(loss, features, retain_graph=True)
    # Only the second prototype, at distance 5, counts: pi_1 / tau * (p_1 - f) / d.
    share = 1 / (1 + math.e) / 5
    torch.testing.assert_close(
        to_features, torch.tensor([[0.6 * share, 0.8 * share], [0, 0]], dtype=torch.float64)
    )
    assert torch.isfinite(torch.autograd.grad(loss, prototypes)[0]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_absent_classes_under_mask_and_floor(backend: str) -> None:
    features, labels = torch.eye(2, dtype=torch.float64), torch.tensor([0, 1])
    prototypes = torch.tensor([[1.0, 0.0], [NAN, NAN]])
    present = torch.tensor([True, False])

    def losses(absent: str) -> list[float]:
        return pixel_prototype_contrast(
            features, labels, prototypes, present=present, temperature=0.5, absent=absent,
            reduction="none", backend=backend,
        ).tolist()  # fmt: skip

    assert losses("mask") == [0, 0]
    # Cosines 1 and 0 to the present class, -1 to the absent one, over a temperature of a half.
    expected = [math.log1p(math.exp(-4)), math.log1p(math.exp(2))]
    assert losses("floor") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("similarity", "is_absent"), [("cosine", True), ("dot", False)])
def test_a_zero_row_is_absent_under_cosine_only(
    similarity: str, is_absent: bool, backend: str
) -> None:
    features, labels = torch.tensor([[0.0, 3.0]]), torch.tensor([0])
    prototypes = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss = pixel_prototype_contrast(
        features, labels, prototypes, similarity=similarity, backend=backend
    )
    assert loss.item() == pytest.approx(0 if is_absent else math.log(2), abs=1e-6)


def test_weights_that_require_grad_are_fine_without_autograd() -> None:
    features, labels, weight = torch.ones(4, 2), torch.zeros(4).long(), torch.ones(4)
    with torch.no_grad():
        loss = pixel_prototype_contrast(
            features, labels, torch.ones(3, 2), pixel_weight=weight.requires_grad_()
        )
    assert loss.item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("prototype_dtype", [torch.float16, torch.float32])
def test_a_loss_scale_saves_small_half_precision_gradients(
    prototype_dtype: torch.dtype, reduction: str, backend: str
) -> None:
    case = ContrastCase(
        0, (2, 7, 3, 5), 4, dtype=torch.float16, prototype_dtype=prototype_dtype,
        reduction=reduction, temperature=20.0,
    )  # fmt: skip
    call = case.tensors()
    # Rows this long have gradients near 1e-8, less than float16 can hold without the scale.
    leaves = {name: (4096 * call[name]).requires_grad_() for name in ("features", "prototypes")}
    found = []
    for one, widen in ((backend, False), ("naive", False), ("naive", True)):
        inputs = {**call, **({k: v.double() for k, v in leaves.items()} if widen else leaves)}
        loss = pixel_prototype_contrast(**inputs, **case.settings, backend=one)
        found.append(torch.autograd.grad(loss * 2.0**20, [inputs[name] for name in leaves]))
    for ours, plain, truth in zip(*found, strict=True):
        assert_within(ours, plain, truth)


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("temperature", [1e-3, 2.0**-20])
def test_logits_too_large_for_exp(temperature: float, backend: str) -> None:
    case = ContrastCase(4, (2, 16, 70), 5, temperature=temperature, reduction="none")
    call = {**case.tensors(), **case.settings}
    found, truth = (
        pixel_prototype_contrast(**call, backend=one).double() for one in (backend, "naive")
    )
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-5 / temperature)
