"""What a public call starts: how many kernels, and specialised as triton's own launcher would."""

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

import protocontrast as pc
from protocontrast import kernels
from protocontrast.calls import PairRolesCall
from protocontrast.kernels.launch import Launch, recorded
from protocontrast.kernels.pair_contrast import pair_contrast, pair_contrast_backward
from protocontrast.kernels.prototypes import Prototypes, finish, prepare
from tests.ahead_of_time.calls import launch_of
from tests.ahead_of_time.cases import DAILY, FAST, LAYOUTS, Case
from tests.ahead_of_time.resources import GPU_TARGETS, compiled, measured, specialised

FEATURES, LABELS = torch.zeros(2, 8, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)
PROTOTYPES = torch.eye(3, 8)


@pytest.fixture
def kernels_on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """backend="triton" takes CPU tensors, whose launches are to be recorded, not run.

    What a kernel would have written is then rubbish, also as labels.
    """
    monkeypatch.setattr(kernels, "INTERPRETED", True)
    monkeypatch.setattr("protocontrast.ops.labels.are_right", lambda *_: True)


def contrasted(features: Tensor, prototypes: Tensor) -> Tensor:
    return pc.pixel_prototype_contrast(features, LABELS, prototypes, backend="triton")


def looked_up(features: Tensor, prototypes: Tensor) -> Tensor:
    return pc.prototype_logits(features, prototypes, backend="triton").sum()


def averaged(features: Tensor, normalize: bool) -> Tensor:
    found = pc.class_prototypes(features, LABELS, 3, normalize=normalize, backend="triton")
    return found.mean.sum()


def upsampled(logits: Tensor) -> Tensor:
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    return pc.upsampled_cross_entropy(logits, labels, backend="triton")


def paired(anchors: Tensor, keys: Tensor) -> Tensor:
    labels = torch.zeros(len(anchors), dtype=torch.int64), torch.zeros(len(keys), dtype=torch.int64)
    return pc.pair_contrast(anchors, labels[0], keys, labels[1], backend="triton")


def distributed(features: Tensor, prototypes: Tensor, variance: Tensor) -> Tensor:
    return pc.distribution_contrast(features, LABELS, prototypes, variance, backend="triton")


def wanted(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_()


FORWARD, BOTH = ["prepare", "contrast", "mean"], ["contrast_backward", "finish"]
# name -> the call, the kernels of its forward and those of its backward.
CALLS: dict[str, tuple[Callable[[], Any], list[str], list[str]]] = {
    "contrast": (
        lambda: contrasted(wanted(FEATURES), PROTOTYPES),
        FORWARD,
        ["contrast_backward"],
    ),
    "contrast, both gradients": (
        lambda: contrasted(wanted(FEATURES), wanted(PROTOTYPES)),
        FORWARD,
        BOTH,
    ),
    "logits": (
        lambda: looked_up(wanted(FEATURES), PROTOTYPES),
        ["prepare", "logits"],
        ["logits_backward"],
    ),
    "logits, both gradients": (
        lambda: looked_up(wanted(FEATURES), wanted(PROTOTYPES)),
        ["prepare", "logits"],
        ["logits_backward", "finish"],
    ),
    "class sums": (
        lambda: averaged(wanted(FEATURES), False),
        ["class_sums"],
        ["class_sums_backward"],
    ),
    "class sums, normalised": (
        lambda: averaged(wanted(FEATURES), True),
        ["class_sums"],
        ["class_sums_backward"],
    ),
    "upsampled": (
        lambda: upsampled(wanted(FEATURES)),
        ["upsampled_cross_entropy", "mean"],
        ["upsampled_cross_entropy_backward", "upsampled_cross_entropy_cells"],
    ),
    "pairs": (
        lambda: paired(wanted(PROTOTYPES), PROTOTYPES),
        ["pair_normaliser", "pair_contrast", "mean"],
        ["pair_contrast_backward"],
    ),
    "pairs, both gradients": (
        lambda: paired(wanted(PROTOTYPES), wanted(PROTOTYPES)),
        ["pair_normaliser", "pair_contrast", "mean"],
        ["pair_contrast_backward", "pair_contrast_backward"],
    ),
    "distribution": (
        lambda: distributed(wanted(FEATURES), PROTOTYPES, PROTOTYPES),
        ["prepare", "prepare", "distribution_contrast", "mean"],
        ["prepare", "prepare", "distribution_contrast_backward"],
    ),
    "distribution, every gradient": (
        lambda: distributed(wanted(FEATURES), wanted(PROTOTYPES), wanted(PROTOTYPES)),
        ["prepare", "prepare", "distribution_contrast", "mean"],
        ["prepare", "prepare", "distribution_contrast_backward", "finish", "finish"],
    ),
    "transfer": (
        lambda: pc.transfer_labels(FEATURES, PROTOTYPES, backend="triton").confidence,
        ["prepare", "transfer"],
        [],
    ),
}


def names(launches: list[Launch]) -> list[str]:
    return [launch.kernel.__name__.removesuffix("_kernel") for launch in launches]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.usefixtures("kernels_on_paper")
def test_a_call_starts_these_kernels(call: str) -> None:
    function, forward, backward = CALLS[call]
    with recorded("sm90") as launches:
        result = function()
    assert names(launches) == forward
    with recorded("sm90") as launches:
        if result.requires_grad:
            result.backward()
    assert names(launches) == backward


@pytest.mark.usefixtures("kernels_on_paper")
def test_a_step_of_bicl_starts_this_many_kernels() -> None:
    method = pc.BiCL(3, 8, backend="triton")
    for bank in (method.source_bank, method.target_bank):
        bank.prototypes.copy_(PROTOTYPES)
        bank.present.fill_(True)
    with recorded("sm90") as launches:
        method(wanted(FEATURES), LABELS, wanted(FEATURES)).loss.backward()
    assert Counter(names(launches)) == {
        "class_sums": 1,
        "target_pass": 1,
        "contrast": 1,
        "contrast_backward": 2,
        "bank_step": 2,
        "equals": 1,
        "step_end": 1,
        "step_back": 1,
    }


def by_triton(launch: Launch, target: GPUTarget) -> tuple[dict[str, Any], dict, dict]:
    """Signature, constants and attributes as triton derives them when a kernel is called."""
    backend = make_backend(target)
    bind = create_function_from_signature(launch.kernel.signature, launch.kernel.params, backend)
    bound, specialization, options = bind(*launch.arguments, launch.meta, **launch.options)
    _, signature, constants, attributes = launch.kernel._pack_args(
        backend, options, bound, specialization, options
    )
    return signature, constants, attributes


def marked(found: tuple[dict[str, Any], dict, dict]) -> tuple[dict, dict, dict]:
    """The same without empty attributes."""
    signature, constants, attributes = found
    return signature, constants, {place: marks for place, marks in attributes.items() if marks}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(one, id=str(one), marks=[] if one in DAILY else pytest.mark.slow)
        for one in FAST
    ],
)
def test_a_launch_is_specialised_as_by_triton(case: Case) -> None:
    for layout, channels in product((*LAYOUTS, "odd", "strided"), (76, 256)):
        launch = launch_of(case._replace(layout=layout, channels=channels))
        ours = marked(specialised(launch, case.target))
        assert ours == marked(by_triton(launch, GPU_TARGETS[case.target]))


def test_a_wrong_specialisation_differs() -> None:
    """The same launch, told of pixels that 16 does not divide."""
    launch = launch_of(FAST[0])
    features, *others = launch.arguments
    other = launch._replace(arguments=(features._replace(pixels=8465), *others))
    theirs = marked(by_triton(other, GPU_TARGETS["sm80"]))
    assert marked(specialised(launch, "sm80")) != theirs


@pytest.mark.parametrize("target", ["sm90", "gfx942"])
def test_a_temperature_in_memory_compiles(target: str) -> None:
    features = torch.empty(2, 64, 100, device="meta", dtype=torch.bfloat16)
    prototypes, temperature = torch.empty(19, 64, device="meta"), torch.empty((), device="meta")
    with recorded(target) as launches:
        given = Prototypes(prototypes, None, None, "cosine", temperature, True)
        prepare(features, given)
        finish(features, prototypes, given)
    for launch in launches:
        assert launch.arguments[0].temperature is temperature
        assert compiled(launch, target).asm


@pytest.mark.parametrize("target", ["sm90", "gfx942"])
def test_pairs_by_distances_compile(target: str) -> None:
    anchors, keys = (torch.empty(count, 64, device="meta") for count in (512, 1024))
    labels = [torch.empty(len(rows), device="meta", dtype=torch.int64) for rows in (anchors, keys)]
    upstream, statistics = torch.empty(512, device="meta"), torch.empty(3, 512, device="meta")
    inputs = anchors, labels[0], keys, labels[1], labels[1], None
    call = PairRolesCall(*inputs, "euclidean", 0.1, False, True, 255)
    with recorded(target) as launches:
        pair_contrast(call)
        pair_contrast_backward(upstream, call, (True, True), statistics)
    assert len(launches) == 4
    for launch in launches:
        assert launch.meta.SIMILARITY == "euclidean"
        assert measured(launch, target).stack == 0
