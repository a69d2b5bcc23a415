"""The operators with the kernels behind them: opcheck, gradcheck, torch.compile, the choice."""

from typing import Any

import pytest
import torch

import protocontrast as pc
from protocontrast import kernels
from tests.differentiable import CALLS, outcome, scene
from tests.test_operators import BACKEND, CASES, on

# A gradient is written in the forward sweep by backends of a CPU alone.
KERNEL_CASES = [
    (name, on(arguments, "triton"))
    for name, arguments in CASES
    if not name.endswith("_with_gradient")
    and BACKEND in [one for one in arguments if isinstance(one, str)]
]


def test_every_kernel_has_a_case() -> None:
    operators = {
        *("contrast", "contrast_backward", "logits", "logits_backward"),
        *("class_sums", "class_sums_backward", "transfer", "target_pass", "target_pass_backward"),
        *("pair_contrast", "pair_contrast_backward"),
        *("distribution_contrast", "distribution_contrast_backward"),
        *("upsampled_cross_entropy", "upsampled_cross_entropy_backward"),
    }
    assert {name for name, _ in KERNEL_CASES} == operators


# What is traced knows no backend, and the main suite asks for it of plain torch.
OF_KERNELS, OF_TRACES = (
    ("test_schema", "test_faketensor"),
    ("test_autograd_registration", "test_aot_dispatch_dynamic"),
)


@pytest.mark.parametrize(
    "asked", [OF_KERNELS, pytest.param(OF_TRACES, marks=pytest.mark.slow)], ids=["kernel", "trace"]
)
@pytest.mark.parametrize(
    ("name", "arguments"),
    KERNEL_CASES,
    ids=[f"{i}-{name}" for i, (name, _) in enumerate(KERNEL_CASES)],
)
def test_opcheck(name: str, arguments: tuple[Any, ...], asked: tuple[str, ...]) -> None:
    operator = getattr(torch.ops.protocontrast, name).default
    results = torch.library.opcheck(operator, arguments, test_utils=asked)
    assert results == dict.fromkeys(asked, "SUCCESS")


@pytest.mark.parametrize("name", ["mean", "dot", "euclidean", "pairs none", "distribution none"])
def test_gradcheck(name: str) -> None:
    features, labels, prototypes = scene()
    leaves = features.requires_grad_(), prototypes.requires_grad_()
    # Along one random direction: every entry of a Jacobian costs two calls.
    assert torch.autograd.gradcheck(
        lambda f, p: CALLS[name](f, labels, p, backend="triton"), leaves, fast_mode=True
    )


def test_compiled_in_one_graph() -> None:
    features, labels, prototypes = scene(torch.float32)

    def step(leaf: torch.Tensor) -> torch.Tensor:
        stats = pc.class_prototypes(leaf, labels, 3, backend="triton")
        loss = pc.pixel_prototype_contrast(leaf, labels, prototypes, backend="triton")
        return loss + stats.mean.square().sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    found, expected = (outcome(call, (features,), [0]) for call in (compiled, step))
    torch.testing.assert_close(found, expected)


def test_func_grad_and_vmap() -> None:
    features, labels, prototypes = scene(torch.float32)

    def loss(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return pc.pixel_prototype_contrast(
            features[None], labels[None], prototypes, reduction="sum", backend="triton"
        )

    found = torch.func.vmap(torch.func.grad(loss))(features, labels)
    leaf = features.clone().requires_grad_()
    total = pc.pixel_prototype_contrast(leaf, labels, prototypes, reduction="sum", backend="naive")
    torch.testing.assert_close(found, torch.autograd.grad(total, leaf)[0])


def test_auto_is_eager_for_cpu_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("a kernel was launched")

    from protocontrast.kernels import launch

    monkeypatch.setattr(launch, "start", refuse)
    features, labels, prototypes = scene(torch.float32)
    assert kernels.INTERPRETED
    pc.pixel_prototype_contrast(features, labels, prototypes)
    pc.class_prototypes(features, labels, 3)
    pc.transfer_labels(features, prototypes)
    with pytest.raises(AssertionError, match="launched"):
        pc.transfer_labels(features, prototypes, backend="triton")


def test_memory_is_poisoned() -> None:
    """Otherwise the other tests of this folder could not see what a kernel leaves out."""
    assert torch.isnan(torch.empty(1000)).all()
