"""Every operator passes `torch.library.opcheck`, and no operator is left out of it."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import protocontrast as pc
from tests.differentiable import scene, soft_labels

INPUTS = FEATURES, LABELS, PROTOTYPES = scene(torch.float32)
SETTINGS = "cosine", 0.1, False, 255
BACKEND = "eager"
DISTANCE = "euclidean", 1.0, False, 255
FLOOR = "cosine", 0.1, True, 255
SLOPES = torch.ones(2, 3, 4)
NEAREST = "confidence", "cosine", 0.1, 255
LOGITS = torch.ones(2, 3, 6)
PIXELS = torch.linspace(-1, 1, 12).reshape(2, 6)
WEIGHTS = torch.tensor([True, True, False]), torch.tensor([1.0, 0.5, 2.0]), PIXELS.abs()
NONE = None, None, None
UNREADY = None, None
UNLEFT = (*UNREADY, None, None)
OF_SUMS = FEATURES, LABELS
ANNEALED = torch.tensor(0.3)
PRESENT = WEIGHTS[0], WEIGHTS[0]
FUSED = 0.5, "confidence", 0.1, False, False, 255, True, True
LOST = None, None, 0.5, "similarity", 0.1, True, True, 255, True, False
NEARBY = PROTOTYPES + 0.1
NEAR = PROTOTYPES, None
GRID = torch.tensor([[[0, 1, 2, 255], [1, 1, 0, 0]]])
MAP = FEATURES.reshape(2, 4, 2, 3)
FINE = torch.tensor([0, 1, 2, 3, 255]).repeat(12).reshape(2, 5, 6)
FINE_SLOPES = torch.linspace(-1, 1, 60).reshape(2, 5, 6)
SPREAD = PROTOTYPES.square()
SPREAD_LEAF = SPREAD.clone().requires_grad_()
UNIT, RAW = (True, 0.5, 255), (False, 2.0, 255)
SHARE = torch.tensor([1.0, 0.0, 2.0, 0.5])
ALIKE = "cosine", 0.1, False, False, 255
EVERY = "dot", 1.0, True, True, 255
ANCHORS, ANCHOR_LABELS = FEATURES.movedim(1, -1).flatten(0, 1), LABELS.flatten()
ANCHOR_LEAF = ANCHORS.clone().requires_grad_()
ROLES = torch.tensor([0, 1, 2]), torch.tensor([255, 0, 1])
SELF = ANCHORS, ANCHOR_LABELS, ANCHORS.clone(), ANCHOR_LABELS, ANCHOR_LABELS.clone()
COUNTED = None, torch.stack([SLOPES.flatten()[:12], PIXELS.flatten(), PIXELS.flatten()])
MAP_LEAF = MAP.clone().requires_grad_()
VOLUME_LEAF = FEATURES.reshape(2, 4, 3, 2, 1).clone().requires_grad_()
VOLUME_SLOPES = FEATURES.reshape(2, 6, 4, 1, 1).transpose(2, 3)
DEEP = FEATURES.reshape(2, 1, 6, 4, 1)[:, :, :3]
PASSED = LABELS, PIXELS.abs(), soft_labels(LABELS), *UNREADY, *UNREADY
SOFT, FILLING = soft_labels(LABELS), torch.arange(1.0, LABELS.shape[1] + 1)
LEAF, ROWS = FEATURES.clone().requires_grad_(), PROTOTYPES.clone().requires_grad_()

CASES: list[tuple[str, tuple[Any, ...]]] = [
    ("contrast", (LEAF, LABELS, ROWS, *NONE, None, *SETTINGS, BACKEND)),
    ("contrast", (LEAF, LABELS.to(torch.uint8), PROTOTYPES, *WEIGHTS, None, *SETTINGS, BACKEND)),
    ("contrast", (LEAF, soft_labels(LABELS), ROWS, *WEIGHTS, None, *DISTANCE, BACKEND)),
    ("contrast", (LEAF.bfloat16().detach(), LABELS, PROTOTYPES, *NONE, None, *FLOOR, BACKEND)),
    ("contrast", (FEATURES[:0], LABELS[:0], PROTOTYPES, *NONE, None, *SETTINGS, BACKEND)),
    ("contrast", (LEAF, LABELS, ROWS, *NONE, ANNEALED, *SETTINGS, BACKEND)),
    ("contrast_backward",
     (PIXELS, *INPUTS, *NONE, None, PIXELS, *UNLEFT, *SETTINGS, True, True, BACKEND)),
    ("contrast_backward",
     (PIXELS, *INPUTS, *WEIGHTS, None, PIXELS, *UNLEFT, *SETTINGS, False, True, BACKEND)),
    ("contrast_backward",
     (PIXELS, *INPUTS, *NONE, ANNEALED, PIXELS, *UNLEFT, *SETTINGS, True, True, BACKEND)),
    ("contrast_with_gradient", (*INPUTS, *NONE, None, *SETTINGS, True, BACKEND, True, True)),
    ("contrast_with_gradient", (*INPUTS, *WEIGHTS, None, *SETTINGS, False, BACKEND, True, False)),
    ("distribution_contrast", (LEAF, LABELS, ROWS, SPREAD_LEAF, *NONE, *UNIT, BACKEND)),
    ("distribution_contrast", (LEAF, soft_labels(LABELS), ROWS, SPREAD, *WEIGHTS, *RAW, BACKEND)),
    ("distribution_contrast",
     (LEAF.bfloat16().detach(), LABELS, ROWS, SPREAD, *NONE, *UNIT, BACKEND)),
    ("distribution_contrast_backward",
     (PIXELS, *INPUTS, SPREAD, *NONE, PIXELS, *UNIT, True, True, True, BACKEND)),
    ("distribution_contrast_backward",
     (PIXELS, *INPUTS, SPREAD, *WEIGHTS, PIXELS, *RAW, False, True, False, BACKEND)),
    ("distribution_contrast_with_gradient",
     (*INPUTS, SPREAD, *NONE, *UNIT, True, BACKEND, True, True, True)),
    ("distribution_contrast_with_gradient",
     (*INPUTS, SPREAD, *WEIGHTS, *RAW, False, BACKEND, True, False, False)),
    ("logits", (LEAF, ROWS, None, "cosine", 0.1, BACKEND)),
    ("logits", (LEAF, PROTOTYPES, WEIGHTS[0], "dot", 1.0, BACKEND)),
    ("logits_backward",
     (LOGITS, FEATURES, PROTOTYPES, None, *UNREADY, "cosine", 0.1, True, True, BACKEND)),
    ("class_sums", (LEAF, LABELS, None, 3, False, False, 255, BACKEND)),
    ("class_sums", (LEAF, LABELS, WEIGHTS[2], 3, True, True, 255, BACKEND)),
    ("class_sums_backward", (SLOPES[:1], *OF_SUMS, None, 3, True, False, 255, True, BACKEND)),
    ("class_sums_backward", (SLOPES, *OF_SUMS, PIXELS, 3, False, True, 255, True, BACKEND)),
    ("class_squares", (FEATURES, LABELS, None, PROTOTYPES[None], False, 255)),
    ("class_squares", (FEATURES.bfloat16(), LABELS, WEIGHTS[2], SLOPES, True, 255)),
    ("transfer", (FEATURES, PROTOTYPES, *NONE, 0.8, *NEAREST, BACKEND)),
    ("transfer", (FEATURES, PROTOTYPES, *WEIGHTS[:2], None, 0.0, *NEAREST, BACKEND)),
    ("transfer", (FEATURES, PROTOTYPES, None, None, ANNEALED, 0.8, *NEAREST, BACKEND)),
    ("target_pass", (LEAF, LABELS, None, None, *NEAR, *PRESENT, ANNEALED, *FUSED, False, BACKEND)),
    ("target_pass",
     (LEAF, LABELS, None, None, PROTOTYPES, NEARBY, *PRESENT, None, *FUSED, False, BACKEND)),
    ("target_pass", (LEAF, LABELS, SOFT, None, *NEAR, *PRESENT, None, *FUSED, False, BACKEND)),
    ("target_pass", (LEAF, LABELS, SOFT, FILLING, *NEAR, *PRESENT, None, *FUSED, True, BACKEND)),
    ("target_pass",
     (LEAF.detach(), None, None, None, *NEAR, *PRESENT, None, *FUSED, True, BACKEND)),
    ("target_pass", (FEATURES, LABELS, None, None, *NEAR, PRESENT[0], *LOST, False, BACKEND)),
    ("target_pass_backward",
     (SHARE[:3], FEATURES, LABELS, None, None, *NEAR, *PRESENT, None, *PASSED, *FUSED, False, True,
      BACKEND)),
    ("target_pass_backward",
     (SHARE[:3], FEATURES, LABELS, SOFT, FILLING, *NEAR, *PRESENT, ANNEALED, *PASSED, *FUSED, False,
      True, BACKEND)),
    ("pair_contrast", (ANCHOR_LEAF, ANCHOR_LABELS, ROWS, *ROLES, None, *ALIKE, BACKEND)),
    ("pair_contrast", (*SELF, PIXELS.flatten().abs(), *EVERY, BACKEND)),
    ("pair_contrast", (ANCHORS[:0], ANCHOR_LABELS[:0], PROTOTYPES, *ROLES, None, *ALIKE, BACKEND)),
    ("pair_contrast_backward", (PIXELS.flatten(), *SELF, *COUNTED, *EVERY, True, True, BACKEND)),
    ("pair_contrast_backward", (PIXELS.flatten(), *SELF, *COUNTED, *ALIKE, False, True, BACKEND)),
    ("label_counts", (GRID, torch.tensor([0, 0]), torch.tensor([0, 0, 1, 1]), 3, 1, 2, 255)),
    ("upsampled_cross_entropy", (MAP_LEAF, FINE, None, 255, False, 0.0, BACKEND)),
    ("upsampled_cross_entropy",
     (MAP_LEAF.bfloat16().detach(), FINE, SHARE, 255, True, 0.1, BACKEND)),
    ("upsampled_cross_entropy", (MAP[:0], FINE[:0], None, 255, True, 0.1, BACKEND)),
    ("upsampled_cross_entropy_backward",
     (FINE_SLOPES, MAP, FINE, SHARE, 255, False, 0.1, True, BACKEND)),
    ("upsampled_cross_entropy_with_gradient",
     (MAP, FINE, None, 255, False, 0.0, True, BACKEND, True)),
    ("upsampled_cross_entropy_with_gradient",
     (MAP.bfloat16(), FINE, SHARE, 255, True, 0.1, False, BACKEND, True)),
    ("stretched_depth", (VOLUME_LEAF, 5, True)),
    ("stretched_depth", (VOLUME_LEAF.bfloat16().detach(), 3, False)),
    ("stretched_depth_backward",
     (VOLUME_SLOPES, DEEP.bfloat16(), 6, False, True)),
    ("checked_labels", (LABELS, 3, 255, "anything")),
    ("copied", (ROWS,)),
    ("copied", (WEIGHTS[0],)),
]  # fmt: skip


def on(arguments: tuple[Any, ...], backend: str) -> tuple[Any, ...]:
    """A case's arguments with another backend, where the operator takes one."""
    return tuple(
        backend if isinstance(value, str) and value == BACKEND else value for value in arguments
    )


@pytest.mark.parametrize(
    ("name", "arguments"), CASES, ids=[f"{i}-{name}" for i, (name, _) in enumerate(CASES)]
)
def test_opcheck(name: str, arguments: tuple[Any, ...]) -> None:
    operator = getattr(torch.ops.protocontrast, name).default
    results = torch.library.opcheck(operator, arguments)
    assert set(results.values()) == {"SUCCESS"}


def test_every_registered_operator_is_checked() -> None:
    registered = {
        name.split("::")[1].split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("protocontrast::")
    }
    assert registered == {name for name, _ in CASES}


def test_a_mode_sees_the_operator_that_a_plain_call_goes_past() -> None:
    names: list[str] = []

    class Names(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            names.append(function.name())
            return function(*args, **(kwargs or {}))

    def call() -> torch.Tensor:
        found = pc.prototype_logits(LEAF, ROWS, backend="eager")
        return torch.autograd.grad(found.sum(), LEAF)[0]

    plain = call()
    with Names():
        watched = call()
    assert torch.equal(plain, watched)
    assert {"protocontrast::logits", "protocontrast::logits_backward"} < set(names)


def test_opcheck_can_fail() -> None:
    @torch.library.custom_op("protocontrast_tests::grows", mutates_args=())
    def grows(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x])

    @grows.register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    with pytest.raises(torch.testing._internal.optests.generate_tests.OpCheckError):
        torch.library.opcheck(torch.ops.protocontrast_tests.grows.default, (FEATURES,))
