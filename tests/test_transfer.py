"""`transfer_labels`: eager equals `naive`; ties, thresholds, absent classes, unreadable pixels."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from protocontrast import TransferredLabels, transfer_labels
from protocontrast.calls import LogitsCall
from protocontrast.naive import prototype_logits
from tests.agreement import similarity_scales, widened
from tests.small_tiles import small_tiles
from tests.strategies import NAN, contrast_cases, normal, rows_of
from tests.tolerance import STEPS, assert_within

BACKENDS = ["eager", "naive"]
KINDS = ["cosine", "dot", "euclidean"]


def undecided(call: dict[str, Any], value: Tensor, noise: float) -> Tensor:
    """Pixels where rounding decides: two prototypes, or measure and threshold, lie that close."""
    wide = widened(call)
    rows = rows_of(wide["features"])
    settings = wide["similarity"], wide["temperature"]
    logits = prototype_logits(LogitsCall(rows, wide["prototypes"], wide["present"], *settings))
    first = logits.max(dim=1)
    gap = first.values[:, None] - logits
    gap[torch.arange(len(rows)), first.indices] = math.inf
    threshold = torch.as_tensor(wide["threshold"]).double().expand(logits.shape[1])
    near = (value.flatten() - threshold[first.indices]).abs() <= noise
    return ((gap.amin(dim=1) <= noise) | near).reshape(value.shape)


def assert_transfer_agrees(call: dict[str, Any], backend: str = "eager") -> None:
    """AssertionError unless labels equal naive's in float64, but where rounding may decide."""
    ours = transfer_labels(**call, backend=backend)
    plain = transfer_labels(**call, backend="naive")
    truth = transfer_labels(**widened(call), backend="naive")
    slope = torch.ones(truth.labels.numel())
    scale = similarity_scales(call, slope, call["similarity"], call["temperature"])["value"]
    scale = max(scale, 1.0)
    assert_within(ours.confidence, plain.confidence, truth.confidence, scale=scale, name="measure")
    dtype = torch.float64 if call["features"].dtype == torch.float64 else torch.float32
    noise = STEPS * torch.finfo(dtype).eps * scale
    differing = (ours.labels != truth.labels) & ~undecided(call, truth.confidence, noise)
    if differing.any():
        raise AssertionError(f"{int(differing.sum())} labels differ from naive's")


@st.composite
def calls(draw: st.DrawFn, similarity: str, measure: str) -> dict[str, Any]:
    """Calls of any form, but for the backend."""
    case = draw(contrast_cases(similarity=similarity, spoilt=None))
    tensors = case.tensors()
    per_class = normal(case.seed, (case.num_classes,)) * 0.3 + 0.4
    # A distance is not below 0.
    number = -0.5 if (similarity, measure) == ("euclidean", "similarity") else 0.5
    return {
        "features": tensors["features"],
        "prototypes": tensors["prototypes"],
        "present": tensors["present"],
        "threshold": draw(st.sampled_from([number, -3.0, torch.tensor(0.3), per_class])),
        "measure": measure,
        "similarity": similarity,
        "temperature": case.temperature,
        "ignore_index": draw(st.sampled_from([255, -100, 2**40])),
    }


@pytest.mark.parametrize("backend", ["eager"])
@pytest.mark.parametrize("measure", ["confidence", "similarity"])
@pytest.mark.parametrize("similarity", KINDS)
@given(data=st.data())
def test_any_call(similarity: str, measure: str, backend: str, data: st.DataObject) -> None:
    with small_tiles():
        assert_transfer_agrees(data.draw(calls(similarity, measure)), backend)


def test_the_check_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    call = {
        "features": normal(0, (20, 4), torch.float32),
        "prototypes": normal(1, (3, 4), torch.float32),
        "present": None,
        "threshold": 0.5,
        "similarity": "cosine",
        "temperature": 0.1,
    }
    assert_transfer_agrees(call)

    right = transfer_labels

    def wrong(**arguments: Any) -> TransferredLabels:
        found = right(**arguments)
        if arguments["backend"] == "eager":
            found.labels[0] = 77
        return found

    monkeypatch.setitem(globals(), "transfer_labels", wrong)
    with pytest.raises(AssertionError, match="1 labels differ"):
        assert_transfer_agrees(call)


def assert_ties_go_lowest(
    num_classes: int, pixels: int, dtype: torch.dtype, similarity: str, backend: str
) -> None:
    """Every prototype stands twice; the copies lie in other rows of the matrix product."""
    rows = normal(num_classes, (num_classes, 33), dtype)
    found = transfer_labels(
        normal(99, (1, 33, pixels), dtype), torch.cat([rows, rows]), threshold=-math.inf,
        similarity=similarity, backend=backend,
    )  # fmt: skip
    assert int(found.labels.max()) < num_classes


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("similarity", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ties_go_to_the_lowest_class(dtype: torch.dtype, similarity: str, backend: str) -> None:
    for num_classes in (1, 2, 5, 10, 17):
        assert_ties_go_lowest(num_classes, 23 * 29, dtype, similarity, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pixel_of_zero_length_ties_with_all(backend: str) -> None:
    present = torch.tensor([False, True, True])
    found = transfer_labels(
        torch.zeros(2, 4), normal(0, (3, 4), torch.float32), present=present, threshold=0.0,
        backend=backend,
    )  # fmt: skip
    assert found.labels.tolist() == [1, 1]
    assert found.confidence.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("measure", ["confidence", "similarity"])
def test_a_threshold_that_is_just_reached_keeps_the_label(measure: str, backend: str) -> None:
    features, prototypes = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    for threshold, label in [(1.0, 0), (math.nextafter(1.0, 2.0), 0), (1.001, 255)]:
        # The measure is exactly 1, and float32 cannot tell the second threshold from it.
        found = transfer_labels(
            features, prototypes, threshold=threshold, measure=measure, backend=backend
        )
        assert found.confidence.tolist() == [1.0]
        assert found.labels.tolist() == [label]


@pytest.mark.parametrize("similarity", KINDS)
@pytest.mark.parametrize("measure", ["confidence", "similarity"])
def test_an_infinite_threshold_keeps_all_or_none(measure: str, similarity: str) -> None:
    features = torch.tensor([[1.0, 0.2], [0.3, 2.0]])
    for threshold, labels in ((math.inf, [255, 255]), (-math.inf, [0, 1])):
        found = transfer_labels(
            features, torch.eye(2), threshold=threshold, measure=measure, similarity=similarity
        )
        assert found.labels.tolist() == labels


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_threshold_per_class(backend: str) -> None:
    features = torch.eye(3)
    for threshold, labels in [
        (torch.tensor([0.0, 2.0, 0.0]), [0, 255, 2]),
        (torch.tensor([2.0, 2.0, 0.5], dtype=torch.float64), [255, 255, 2]),
        (torch.tensor(0.0), [0, 1, 2]),
        (torch.tensor(2.0), [255, 255, 255]),
        (0, [0, 1, 2]),
    ]:
        found = transfer_labels(features, torch.eye(3), threshold=threshold, backend=backend)
        assert found.labels.tolist() == labels


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("measure", ["confidence", "similarity"])
@pytest.mark.parametrize("similarity", KINDS)
def test_no_class_present(similarity: str, measure: str, backend: str) -> None:
    features = normal(0, (2, 3, 4, 5), torch.float32)
    features[1, :, 2, 2] = NAN
    found = transfer_labels(
        features, torch.full((4, 3), NAN), present=torch.zeros(4, dtype=torch.bool),
        threshold=-math.inf, measure=measure, similarity=similarity, ignore_index=-7,
        backend=backend,
    )  # fmt: skip
    assert (found.labels == -7).all()
    assert math.isnan(found.confidence[1, 2, 2])
    assert torch.nan_to_num(found.confidence, nan=0.0).eq(0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("measure", ["confidence", "similarity"])
@pytest.mark.parametrize("similarity", KINDS)
def test_a_nan_pixel_is_ignored(similarity: str, measure: str, backend: str) -> None:
    features = normal(0, (6, 3), torch.float32)
    features[2, 1] = NAN
    found = transfer_labels(
        features, normal(1, (4, 3), torch.float32), threshold=-math.inf, measure=measure,
        similarity=similarity, backend=backend,
    )  # fmt: skip
    assert torch.isnan(found.confidence).tolist() == [i == 2 for i in range(6)]
    assert (found.labels == 255).tolist() == [i == 2 for i in range(6)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("similarity", "value"), [("cosine", 0.8), ("dot", 4.0), ("euclidean", -math.sqrt(18))]
)
def test_the_measure_stands_also_where_the_label_was_dropped(
    similarity: str, value: float, backend: str
) -> None:
    features, prototypes = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = transfer_labels(
        features, prototypes, threshold=math.inf, measure="similarity", similarity=similarity,
        temperature=0.07, backend=backend,
    )  # fmt: skip
    assert found.labels.tolist() == [255]
    assert found.confidence.item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_confidence_is_the_share_of_the_nearest_class(backend: str) -> None:
    features, prototypes = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = transfer_labels(features, prototypes, temperature=0.5, backend=backend)
    assert found.confidence.item() == pytest.approx(1 / (1 + math.exp(-0.2 / 0.5)), rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0, 4), (2, 3, 5), (7, 3)])
def test_shapes_and_dtypes(shape: tuple[int, ...], backend: str) -> None:
    for dtype in (torch.float16, torch.float32, torch.float64):
        features = torch.ones(shape, dtype=dtype, requires_grad=True)
        found = transfer_labels(features, torch.ones(2, 3), backend=backend)
        assert not found.confidence.requires_grad
        assert isinstance(found, TransferredLabels)
        pixels = shape[:1] if len(shape) == 2 else (shape[0], *shape[2:])
        assert found.labels.shape == found.confidence.shape == pixels
        assert found.labels.dtype == torch.int64
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        assert found.confidence.dtype == wide


@pytest.mark.parametrize("differing", [None, 0, 9, 10])
def test_prototypes_that_are_equal_share_the_lowest_label(differing: int | None) -> None:
    """A difference in a single channel, whichever it is, makes them two."""
    prototypes = normal(0, (4, 11), torch.float64)
    prototypes[3] = prototypes[1]
    if differing is not None:
        prototypes[3, differing] += 1.0
    pixels = prototypes[[3, 1, 0]]
    found = transfer_labels(pixels, prototypes, threshold=0.0)
    assert found.labels.tolist() == [1 if differing is None else 3, 1, 0]
