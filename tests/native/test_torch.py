"""C as a guest of torch: every contract that its calls have on plain torch."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import protocontrast as pc
from tests import (
    test_compile,
    test_double_backward,
    test_export,
    test_operators,
    test_temperature_learnt,
    test_torch_contracts,
    test_transforms,
)
from tests.differentiable import CALLS, scene
from tests.shared import marked_anew, parametrised_by

CONTRACTS = (
    *(test_compile, test_double_backward, test_export, test_temperature_learnt),
    *(test_torch_contracts, test_transforms),
)

# Their calls name no backend, and so take C here.
for module in CONTRACTS:
    for name, test in parametrised_by("name", module).items():
        stem = module.__name__.rpartition("test_")[2]
        globals()[f"{name}_of_{stem}"] = marked_anew(test, test.pytestmark)


@pytest.fixture(autouse=True)
def native() -> Iterator[None]:
    """A call that C does not serve is refused here, and never served by another backend."""
    torch.compiler.reset()
    with pc.default_backend("native"):
        yield
    torch.compiler.reset()


OPERATORS = (
    *("contrast", "contrast_backward", "contrast_with_gradient"),
    *("class_sums", "class_sums_backward", "transfer", "logits", "logits_backward"),
    *("pair_contrast", "pair_contrast_backward"),
    *("target_pass", "target_pass_backward"),
    *("upsampled_cross_entropy", "upsampled_cross_entropy_backward"),
    "upsampled_cross_entropy_with_gradient",
)


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        pytest.param(name, test_operators.on(arguments, "native"), id=f"{i}-{name}")
        for i, (name, arguments) in enumerate(test_operators.CASES)
        if name in OPERATORS
    ],
)
def test_opcheck(operator: str, arguments: tuple[Any, ...]) -> None:
    test_operators.test_opcheck(operator, arguments)


def test_tensors_on_paper_need_no_library() -> None:
    features, labels, prototypes = (one.to("meta") for one in scene())
    assert CALLS["none"](features, labels, prototypes).shape == (2, 6)


@pytest.mark.parametrize("wrong", [3, -1, 2**40])
def test_a_wrong_label_is_refused_before_c_reads_it(wrong: int) -> None:
    features, labels, prototypes = scene()
    with pytest.raises(ValueError, match=f"value {wrong}"):
        pc.pixel_prototype_contrast(features, torch.full_like(labels, wrong), prototypes)
