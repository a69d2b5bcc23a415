"""What holds of every operator on every backend: it equals `naive`, and is a guest of autograd."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.operator_calls import (
    ANY,
    OF_DOMAINS,
    OF_LABELS,
    OF_PIXELS,
    PLAIN,
    REDUCED,
    SHAPE,
    Call,
)
from tests.small_tiles import small_tiles
from tests.strategies import LABEL_DTYPES, NAN, normal, seeds

SLOW = {"pairs by distance"}
HALVES = (torch.bfloat16, torch.float16)
BY_PLACE = [name for name in PLAIN if name not in OF_DOMAINS]
SPOILABLE = [name for name in PLAIN if name not in ("logits", "smoothed contrast", "upsampled")]
BY_REDUCTION = [(name, "mean") for name in PLAIN if name not in REDUCED] + [
    (name, reduction) for name in REDUCED for reduction in ("mean", "sum", "none")
]


def plain(name: str, reduction: str = "none", **how: Any) -> Call:
    return PLAIN[name](reduction=reduction, **how)


def gradients(loss: Tensor, leaves: dict[str, Tensor], **how: Any) -> tuple[Tensor, ...]:
    """Of a sum that no two elements of the loss enter alike."""
    slopes = torch.linspace(0.5, 1.5, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    return torch.autograd.grad(loss, list(leaves.values()), slopes, **how)


def assert_equal(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in ANY]
)
@given(data=st.data())
def test_any_call(name: str, backend: str, data: st.DataObject) -> None:
    """In value and every gradient, over several tiles, and nothing that is given is written."""
    call = data.draw(ANY[name])
    wanted = data.draw(st.sampled_from([(leaf,) for leaf in call.leaves] + [call.leaves]))
    with small_tiles():
        call.assert_agrees(backend, wanted, data.draw(seeds))


@pytest.mark.parametrize("backend", ["eager", "naive"])
@pytest.mark.parametrize("name", PLAIN)
def test_two_runs_give_the_same_bits(name: str, backend: str) -> None:
    larger = {"features_shape": (2, 33, 140)} if name in OF_PIXELS else {}
    if name == "pairs":
        larger = {"anchors": 70, "keys": 140, "depth": 33}
    call = plain(name, **larger)
    leaves = call.fresh()
    runs = [call.result(backend, **leaves) for _ in range(2)]
    assert torch.equal(*runs)
    assert_equal(*(gradients(run, leaves) for run in runs))


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
@pytest.mark.parametrize(("name", "reduction"), BY_REDUCTION)
def test_a_gradient_has_the_memory_format_and_dtype_of_its_leaf(
    name: str, reduction: str, dtype: torch.dtype, layout: str, backend: str
) -> None:
    forms = [{"features_shape": shape} for shape in (SHAPE, (2, 7, 2, 3, 5), (2, 7, 15), (15, 7))]
    if name in OF_DOMAINS:
        forms = forms[:2]
    for form in forms if name in OF_PIXELS else [{}]:
        call = plain(name, reduction, dtype=dtype, layout=layout, **form)
        leaves = call.fresh()
        result = call.result(backend, **leaves)
        assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert "means" not in name or result.is_contiguous()
        for leaf, gradient in zip(leaves.values(), gradients(result, leaves), strict=True):
            # Of two that are added up, as where domains are composed, torch chooses the format.
            assert name in OF_DOMAINS or gradient.stride() == leaf.stride()
            assert gradient.dtype == leaf.dtype


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("layout", ["expanded", "transposed", "strided", "reversed"])
@pytest.mark.parametrize(
    ("name", "form"),
    # Of a map, autograd may copy what comes back before the operator sees it.
    [(name, {}) for name in BY_PLACE]
    + [(name, {"features_shape": (2, 7, 15)}) for name in OF_PIXELS if name in BY_PLACE],
)
def test_upstream_gradients_of_any_stride(
    name: str, form: dict[str, Any], layout: str, backend: str
) -> None:
    call = plain(name, **form)
    leaves = call.fresh()
    result = call.result(backend, **leaves)
    shape = tuple(result.shape)
    backwards = list(reversed(range(result.dim())))
    upstream = {
        "expanded": torch.tensor(0.7).expand(shape),
        "transposed": normal(1, shape[::-1], torch.float32).permute(backwards),
        "strided": normal(1, tuple(2 * n for n in shape), torch.float32)[
            (slice(None, None, 2),) * len(shape)
        ],
        "reversed": normal(1, shape, torch.float32).flip(-1).permute(backwards).contiguous()
        .permute(backwards),
    }[layout]  # fmt: skip
    tensors = list(leaves.values())
    found = torch.autograd.grad(result, tensors, upstream, retain_graph=True)
    dense = upstream.clone(memory_format=torch.contiguous_format)
    # A product sums another layout in another order.
    expected = torch.autograd.grad(result, tensors, dense)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["eager", "naive"])
@pytest.mark.parametrize(("dtype", "ignore_index"), LABEL_DTYPES)
@pytest.mark.parametrize("name", OF_LABELS)
def test_every_integer_dtype_gives_the_same_bits(
    name: str, dtype: torch.dtype, ignore_index: int, backend: str
) -> None:
    spoilt = {"spoilt": NAN} if name in SPOILABLE else {}
    call = plain(name, label_dtype=(dtype, ignore_index), **spoilt)
    labels = [key for key in call.given if key.endswith("labels")]
    assert labels
    results = []
    for kind in (dtype, torch.int64):
        leaves = call.fresh()
        given_labels = {key: call.given[key].to(kind) for key in labels}
        result = call.result(backend, **given_labels, **leaves)
        results.append((result, *gradients(result, leaves)))
    assert_equal(*results)


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("weight", [torch.float64, torch.float16])
@pytest.mark.parametrize(
    ("dtype", "other"), [(torch.float64, torch.bfloat16), (torch.float16, torch.float64)]
)
@pytest.mark.parametrize("name", ["contrast", "logits", "distribution", "pairs"])
def test_operands_have_each_a_dtype_of_their_own(
    name: str, dtype: torch.dtype, other: torch.dtype, weight: torch.dtype, backend: str
) -> None:
    how = {"prototype_dtype": other, "pixel_weight": weight, "class_weight": weight}
    if name == "pairs":
        how = {"key_dtype": other, "anchor_weight": weight}
    plain(name, dtype=dtype, **how).assert_agrees(backend)


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize(("name", "reduction"), BY_REDUCTION)
def test_two_losses_of_one_leaf_add_up_and_scale(name: str, reduction: str, backend: str) -> None:
    """What a sweep wrote is scaled in place: only where nobody else holds it."""
    calls = [plain(name, reduction, dtype=torch.float64, seed=seed) for seed in (0, 1)]
    leaf = calls[0].leaves[0]
    shared = {leaf: calls[0].fresh()[leaf]}
    first, second = (call.result(backend, **shared).sum() for call in calls)
    parts = [
        torch.autograd.grad(loss, shared[leaf], retain_graph=True)[0] for loss in (first, second)
    ]
    kept = [part.clone() for part in parts]
    (together,) = torch.autograd.grad(3 * first - second, shared[leaf], retain_graph=True)
    torch.testing.assert_close(together, 3 * kept[0] - kept[1], rtol=1e-12, atol=1e-14)
    for part, loss in zip(parts, (first, second), strict=True):
        part.fill_(7)
        loss.backward()
    torch.testing.assert_close(shared[leaf].grad, kept[0] + kept[1])
    for factor in (1.0, 0.0, -2.5):
        loss = calls[0].result(backend, **shared).sum()
        (scaled,) = torch.autograd.grad(factor * loss, shared[leaf])
        torch.testing.assert_close(scaled, factor * kept[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", ["eager", "naive"])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("name", "reduction"), BY_REDUCTION)
def test_autocast_around_the_call_changes_nothing(
    name: str, reduction: str, dtype: torch.dtype, backend: str
) -> None:
    for narrow in ({}, {"dtype": dtype}):
        call = plain(name, reduction, **narrow)
        leaves = call.fresh()
        expected = call.result(backend, **leaves)
        slopes = gradients(expected, leaves)
        with torch.autocast("cpu", dtype=dtype):
            result = call.result(backend, **leaves)
            # Plain autograd, which naive uses, would run its backward in autocast, too.
            if backend != "naive":
                assert_equal(gradients(result, leaves, retain_graph=True), slopes)
        assert torch.equal(result, expected)
        assert_equal(gradients(result, leaves), slopes)


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize(
    ("name", "reduction"), [one for one in BY_REDUCTION if "prototypes" in PLAIN[one[0]]().given]
)
def test_a_bank_may_change_between_forward_and_backward(
    name: str, reduction: str, backend: str
) -> None:
    call = plain(name, reduction, presence="given")
    moving = [key for key in ("prototypes", "variance", "present") if key in call.given]
    bank = {key: call.given[key].clone() for key in moving}
    leaves = {"features": call.fresh()["features"]}
    expected = gradients(call.result(backend, **leaves), leaves)
    result = call.result(backend, **leaves, **bank)
    for value in bank.values():
        value.logical_not_() if value.dtype == torch.bool else value.mul_(-1).add_(0.3)
    assert_equal(gradients(result, leaves), expected)


@pytest.mark.parametrize("backend", ["eager", "naive"])
@pytest.mark.parametrize("spoilt", [NAN, float("inf")])
@pytest.mark.parametrize("presence", ["all", "given"])
@pytest.mark.parametrize("name", SPOILABLE)
def test_what_does_not_count_is_never_read(
    name: str, presence: str, spoilt: float, backend: str
) -> None:
    """Pixels that are ignored, of weight 0 or of an absent class, and the rows of absent ones."""
    how: dict[str, Any] = {"anchor_weight": torch.float32, "zero_rows": True}
    if name in OF_PIXELS:
        how = {"pixel_weight": torch.float32, "presence": "all" if "mean" in name else presence}
    found, leaf = [], plain(name).leaves[0]
    for value in (None, spoilt):
        call = plain(name, **how, spoilt=value)
        weight = call.given.get("pixel_weight")
        if weight is not None and not call.given["labels"].is_floating_point():
            weight[call.given["labels"] == 255] = spoilt
        leaves = call.fresh()
        result = call.result(backend, **leaves)
        found.append((result, *gradients(result, leaves)))
    unread = ~call.given[leaf].isfinite()
    assert unread.any() and not unread.all()
    assert not found[1][1][unread].any()
    assert all(one.isfinite().all() for one in found[1])
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("upstream", [NAN, float("inf")])
@pytest.mark.parametrize("name", BY_PLACE)
def test_what_comes_back_to_what_does_not_count_goes_nowhere(
    name: str, upstream: float, backend: str
) -> None:
    how: dict[str, Any] = {"anchor_weight": torch.float32} if name == "pairs" else {}
    if name in OF_PIXELS and "means" not in name:
        how = {"presence": "given"}
    call = plain(name, **how)
    leaves = call.fresh()
    result = call.result(backend, **leaves)
    slopes = normal(1, tuple(result.shape), torch.float32)
    unasked = (result == 0) | result.isinf()
    assert unasked.any() and not unasked.all()
    tensors = list(leaves.values())
    expected = torch.autograd.grad(result, tensors, slopes, retain_graph=True)
    found = torch.autograd.grad(result, tensors, torch.where(unasked, upstream, slopes))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["eager", "naive"])
@pytest.mark.parametrize("name", [name for name in BY_PLACE if "me" not in name and name[0] != "u"])
def test_a_pixel_that_counts_and_is_nan_gives_nan_and_spoils_no_other(
    name: str, backend: str
) -> None:
    call = plain(name, **({"features_shape": (2, 7, 70)} if name in OF_PIXELS else {}))
    leaf = call.leaves[0]
    clean = call.result(backend)
    clean = clean.movedim(1, -1) if name == "logits" else clean[..., None]
    index = tuple(clean.any(dim=-1).nonzero()[-1].tolist())
    values = call.given[leaf]
    (values if values.dim() == 2 else values.movedim(1, -1))[(*index, 1)] = NAN
    leaves = call.fresh()
    with small_tiles():
        result = call.result(backend, **leaves)
        to_leaf, *others = gradients(result, leaves)
    result = result.movedim(1, -1) if name == "logits" else result[..., None]
    to_leaf = to_leaf if to_leaf.dim() == 2 else to_leaf.movedim(1, -1)
    for one in (result, to_leaf):
        spoilt = one.isnan().any(dim=-1)
        assert spoilt[index] and spoilt.sum() == 1
    assert all(one.isnan().any() for one in others)


WITHOUT_PIXELS = [
    {"label_kind": "all_ignored"},
    {"label_kind": "all_ignored", "spoilt": NAN},
    {"presence": "none", "label_kind": "full"},
    {"features_shape": (0, 5, 3, 4)},
    {"features_shape": (0, 5, 0)},
    {"features_shape": (2, 5, 0, 4)},
    {"features_shape": (0, 5)},
    {"pixel_weight": torch.float32},
]
NOTHING: dict[str, list[dict[str, Any]]] = {
    "contrast": [*WITHOUT_PIXELS, {"presence": "none", "similarity": "euclidean"}],
    "contrast of soft targets": WITHOUT_PIXELS,
    "distribution": WITHOUT_PIXELS,
    "smoothed contrast": WITHOUT_PIXELS,
    "both ways": [*WITHOUT_PIXELS[:2], *WITHOUT_PIXELS[3:6]],
    "balanced pairs of images": [*WITHOUT_PIXELS[:2], *WITHOUT_PIXELS[3:6:2]],
    "class means": [*WITHOUT_PIXELS[:1], *WITHOUT_PIXELS[3:]],
    "pairs": [
        {"label_kind": "all_ignored"},
        {"anchors": 0},
        {"keys": 0},
        {"anchors": 0, "keys": 0},
        {"anchor_weight": torch.float32},
    ],
    "upsampled": [
        {"label_kind": "all_ignored"},
        {"shape": (0, 5, 3, 4)},
        {"class_weight": torch.float32},
    ],
}


@pytest.mark.parametrize("backend", ["eager", "naive"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name in NOTHING for change in NOTHING[name]]
)
def test_where_nothing_counts_the_loss_is_zero_and_connected(
    name: str, change: dict[str, Any], reduction: str, backend: str
) -> None:
    call = plain(name, reduction, **change)
    for key in ("pixel_weight", "class_weight", "anchor_weight"):
        if call.given.get(key) is not None:
            call.given[key].zero_()
    leaves = call.fresh()
    result = call.result(backend, **leaves)
    assert result.requires_grad
    assert (result == 0).all()
    for leaf, gradient in zip(leaves.values(), gradients(result, leaves), strict=True):
        assert gradient.shape == leaf.shape
        assert (gradient == 0).all()
