"""For every operator its contenders on the same inputs, the library among them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import protocontrast as pc
from benchmarks import contenders as plain
from benchmarks import distributions, pairs, released
from benchmarks.cases import UPSAMPLED
from benchmarks.inputs import Inputs
from benchmarks.peers import contrast_peers, valid_rows

LIBRARY = "protocontrast"
IN_TORCH = "protocontrast, eager"
"""The library in plain torch, where "auto" takes C; a case without it was measured in torch."""
OURS = LIBRARY, IN_TORCH
COMPILED = "torch.compile"

Outputs = dict[str, Tensor]
Contender = Callable[[Inputs], Outputs]


class Operator(NamedTuple):
    """Contenders by name, the library among them, and the output that can be differentiated.

    `tolerance` is the largest error over the largest value in float32; compositions stay below 4e-6
    of it here, but where a comment says why.
    """

    contenders: dict[str, Contender]
    differentiated: str | None
    tolerance: float = 1e-5
    reference: Contender | None = None

    @property
    def plainest(self) -> str:
        """The first alternative, which torch.compile is given."""
        return next(name for name in self.contenders if name not in OURS)

    @property
    def truth(self) -> Contender:
        """What is computed in float64: the first alternative, where no other one is named."""
        return self.reference or self.contenders[self.plainest]


def _loss(function: Callable[..., Tensor]) -> Contender:
    return lambda given: {"loss": function(given.features, given.labels, given.prototypes)}


def _pair(
    names: tuple[str, str], arguments: tuple[str, ...]
) -> Callable[[Callable[..., tuple[Tensor, Tensor]]], Contender]:
    """How a function of these inputs becomes a contender with two outputs of these names."""
    return lambda function: (
        lambda given: dict(
            zip(names, function(*(getattr(given, name) for name in arguments)), strict=True)
        )
    )


_means = _pair(("mean", "count"), ("features", "labels"))
_moments = _pair(("mean", "variance"), ("features", "labels"))
_labels = _pair(("labels", "confidence"), ("features", "prototypes"))
_step = _pair(("loss", "target_labels"), ("features", "labels", "target"))


def _labelled_step(function: Callable[..., tuple[Tensor, Tensor]]) -> Contender:
    """A step whose target labels are given, as the sum of its directions."""
    return lambda given: {
        "loss": sum(
            function(
                given.features, given.labels, given.target, given.target_labels,
                num_classes=plain.NUM_CLASSES,
            )
        )
    }  # fmt: skip


def _ours(
    made: Callable[[Callable[..., Any]], Contender], function: Callable[..., Any]
) -> dict[str, Contender]:
    """The library, and the library as it is without a compiler, where that is another one."""
    found = {LIBRARY: made(function)}
    if pc.backends()["native"].startswith("usable"):
        found[IN_TORCH] = made(partial(function, backend="eager"))
    return found


def _library_contrast(
    features: Tensor, labels: Tensor, prototypes: Tensor, backend: str = "auto"
) -> Tensor:
    return pc.pixel_prototype_contrast(
        features, labels, prototypes, temperature=plain.TEMPERATURE, backend=backend
    )


def _library_soft(
    features: Tensor, targets: Tensor, prototypes: Tensor, backend: str = "auto"
) -> Tensor:
    return pc.pixel_prototype_contrast(
        features, targets, prototypes, similarity="euclidean", temperature=plain.DISTANCE,
        backend=backend,
    )  # fmt: skip


def _library_means(
    features: Tensor, labels: Tensor, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    mean, count = pc.class_prototypes(features, labels, plain.NUM_CLASSES, backend=backend)
    return mean, count


def _library_transfer(
    features: Tensor, prototypes: Tensor, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    labels, confidence = pc.transfer_labels(
        features, prototypes, threshold=plain.THRESHOLD, temperature=plain.TEMPERATURE,
        backend=backend,
    )  # fmt: skip
    return labels, confidence


def _library_released(
    source: Tensor,
    labels: Tensor,
    target: Tensor,
    target_labels: Tensor,
    num_classes: int,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    out = pc.bidirectional_contrast(
        source, labels, target, target_labels, num_classes=num_classes, pairwise=True,
        temperature=plain.TEMPERATURE, absent="floor", backend=backend,
    )  # fmt: skip
    return out.target_to_source, out.source_to_target


def _distribution(function: Callable[..., Tensor]) -> Contender:
    """Contrast with distributions of the size that normalised features have."""

    def loss(given: Inputs) -> Outputs:
        means = given.prototypes / plain.NUM_CLASSES
        return {"loss": function(given.features, given.labels, means, means.square())}

    return loss


def _pairs(function: pairs.Loss) -> Contender:
    """Contrast between all valid pixels."""

    def loss(given: Inputs) -> Outputs:
        rows, labels = valid_rows(given.features, given.labels)
        return {"loss": function(rows, labels)}

    return loss


def _upsampled(align_corners: bool) -> dict[str, Contender]:
    ours = partial(pc.upsampled_cross_entropy, align_corners=align_corners)
    eager = partial(plain.upsampled_cross_entropy, align_corners=align_corners)

    def contender(function: Callable[..., Tensor]) -> Contender:
        return lambda given: {"loss": function(given.features, given.labels)}

    return {**_ours(contender, ours), "eager": contender(eager)}


OPERATORS = {
    "contrast": Operator(
        {
            **_ours(_loss, _library_contrast),
            "eager": _loss(plain.contrast),
            "tuned eager": _loss(plain.contrast_tuned),
        },
        "loss",
    ),
    "contrast, libraries": Operator(
        _ours(_loss, _library_contrast)
        | {name: _loss(function) for name, function in contrast_peers().items()},
        "loss",
    ),
    "contrast, soft": Operator(
        {**_ours(_loss, _library_soft), "eager": _loss(plain.soft_contrast)}, "loss"
    ),
    "class_prototypes": Operator(
        {
            **_ours(_means, _library_means),
            "one-hot einsum": _means(plain.class_means_einsum),
            "one-hot bmm": _means(plain.class_means_bmm),
            "index_add": _means(plain.class_means_index_add),
        },
        "mean",
    ),
    "transfer_labels": Operator(
        {
            **_ours(_labels, _library_transfer),
            "eager": _labels(plain.transfer),
            "tuned eager": _labels(plain.transfer_tuned),
        },
        None,
    ),
    "bidirectional step": Operator(
        {
            **_ours(_step, plain.library_step),
            "eager": _step(plain.bidirectional_step),
            "tuned eager": _step(plain.bidirectional_step_tuned),
        },
        "loss",
    ),
    "bidirectional step, by class": Operator(
        {**_ours(_step, plain.library_step), "passes by class": _step(released.step_by_class)},
        "loss",
        reference=_step(plain.bidirectional_step),
    ),
    "released step": Operator(
        {
            **_ours(_labelled_step, _library_released),
            "passes by class": _labelled_step(released.released_step),
        },
        "loss",
    ),
    "BiCL step": Operator(
        {
            **_ours(_step, plain.bicl_step),
            "public functions": _step(plain.bicl_step_composed),
        },
        "loss",
    ),
    "distribution contrast": Operator(
        {
            LIBRARY: _distribution(distributions.library_contrast),
            "eager": _distribution(distributions.eager_contrast),
        },
        "loss",
    ),
    "class_statistics": Operator(
        {
            LIBRARY: _moments(distributions.library_statistics),
            "one-hot einsum": _moments(distributions.one_hot_statistics),
        },
        None,
    ),
    "pair contrast": Operator(
        {**_ours(_pairs, pairs.streamed), "all pairs": _pairs(pairs.dense)}, "loss"
    ),
    "pair contrast, all": Operator(
        {
            **_ours(_pairs, pairs.streamed_all),
            "all pairs": _pairs(pairs.dense_all),
            **{name: _pairs(function) for name, function in pairs.pair_peers().items()},
        },
        "loss",
    ),
    # With aligned corners F.interpolate takes its positions from a rounded float32 step.
    **{name: Operator(_upsampled(a), "loss", 5e-5 if a else 1e-5) for name, a in UPSAMPLED.items()},
}


def with_compiled(operator: Operator) -> Operator:
    """The operator with torch.compile of its plainest alternative among the contenders."""
    compiled = torch.compile(operator.contenders[operator.plainest], dynamic=False)
    return operator._replace(contenders=operator.contenders | {COMPILED: compiled})


def evaluated(operator: Operator, contender: Contender, inputs: Inputs) -> Outputs:
    """Outputs and gradients by name, from one call and one backward."""
    outputs = contender(inputs)
    leaves = {name: value for name, value in inputs._asdict().items() if value.requires_grad}
    if operator.differentiated is not None and leaves:
        top = outputs[operator.differentiated]
        gradients = torch.autograd.grad(top, list(leaves.values()), inputs.upstream)
        outputs |= {f"gradient of {k}": v for k, v in zip(leaves, gradients, strict=True)}
    return {name: value.detach() for name, value in outputs.items()}


def run(operator: Operator, contender: str, inputs: Inputs) -> Outputs:
    """`evaluated` of a contender by its name."""
    return evaluated(operator, operator.contenders[contender], inputs)
