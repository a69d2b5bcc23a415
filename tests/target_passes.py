"""A target pass of any form of pixels, from arguments by name, as tests ask for it."""

from typing import Any

from torch import Tensor

from protocontrast.calls import TargetPassCall
from protocontrast.checks import public
from protocontrast.functional.pixels import Pixels, read_features, read_labels, read_targets
from protocontrast.functional.settings import Backend, read_temperature
from protocontrast.functional.target_pass import TargetPass, pass_over


@public
def target_pass(
    features: Tensor,
    prototypes: Tensor,
    *,
    counted: Tensor | None,
    static: Tensor | None = None,
    targets: Tensor | None = None,
    filling: Tensor | None = None,
    nearest: Tensor | None = None,
    threshold: float = 0.8,
    temperature: float | Tensor = 0.1,
    absent: str = "mask",
    ignore_index: int = 255,
    wants_means: bool = True,
    even: bool = True,
    backend: Backend = "auto",
    **given: Any,
) -> TargetPass:
    """Labels, confidence and targets come back in the form of the pixels."""
    pixels, known = read_features(features), (prototypes.shape[0], ignore_index)
    call = TargetPassCall(
        features=pixels.features.detach() if counted is None else pixels.features,
        static=None if static is None else read_labels(pixels, static, *known),
        targets=None if targets is None else read_targets(pixels, targets, *known),
        filling=None if filling is None else filling.flatten(),
        prototypes=prototypes.detach(),
        nearest=None if nearest is None else nearest.detach(),
        counted=counted,
        threshold=threshold,
        temperature=read_temperature(temperature, features),
        keep_absent=absent == "floor",
        ignore_index=ignore_index,
        wants_sums=wants_means,
        **{"measure": "confidence", "normalize": False, "transfer": True, **given},
    )
    found = pass_over(call, backend, even)
    return found._replace(
        labels=pixels.restored(found.labels),
        confidence=pixels.restored(found.confidence),
        targets=None if found.targets is None else _restored(found.targets, pixels),
    )


def _restored(soft: Tensor, pixels: Pixels) -> Tensor:
    if len(pixels.shape) == 1:
        return soft[0].t()
    return soft.reshape(pixels.shape[0], soft.shape[1], *pixels.shape[1:])
