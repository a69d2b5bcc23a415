"""Losses of other libraries that say the same as the contrast, given what they need.

torch's own `linear_cross_entropy` takes normalised pixels. pytorch-metric-learning has no ignored
labels, so the valid pixels are gathered; its losses own their prototypes, and are handed ours.
"""

from collections.abc import Callable
from importlib.util import find_spec

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contenders import IGNORE_INDEX, TEMPERATURE


def unit_rows(features: Tensor) -> Tensor:
    """Normalised pixels (N, D), a copy."""
    return F.normalize(features, dim=1).movedim(1, -1).flatten(0, -2)


def linear_cross_entropy(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """F.linear_cross_entropy of unit pixels and unit prototypes over the temperature."""
    units = F.normalize(prototypes, dim=1) / TEMPERATURE
    return F.linear_cross_entropy(
        unit_rows(features), units, labels.flatten(), ignore_index=IGNORE_INDEX
    )


def valid_rows(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (N, D) with a label, and their labels (N,); a copy."""
    rows = features.movedim(1, -1).flatten(0, -2)
    used = labels.flatten() != IGNORE_INDEX
    return rows[used], labels.flatten()[used]


def _handed(loss: nn.Module, name: str, prototypes: Tensor) -> nn.Module:
    """The loss with prototypes that are no parameter of its own."""
    delattr(loss, name)
    setattr(loss, name, prototypes)
    return loss


def normalized_softmax(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """NormalizedSoftmaxLoss of pytorch-metric-learning."""
    from pytorch_metric_learning.losses import NormalizedSoftmaxLoss

    loss = NormalizedSoftmaxLoss(*prototypes.shape, temperature=TEMPERATURE)
    found: Tensor = _handed(loss, "W", prototypes.t())(*valid_rows(features, labels))
    return found


def proxy_nca(features: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """ProxyNCALoss of pytorch-metric-learning; |a - b|^2 of unit vectors is 2 - 2 cos."""
    from pytorch_metric_learning.losses import ProxyNCALoss

    loss = ProxyNCALoss(*prototypes.shape, softmax_scale=1 / (2 * TEMPERATURE))
    found: Tensor = _handed(loss, "proxies", prototypes)(*valid_rows(features, labels))
    return found


OPTIONAL: dict[str, Callable[..., Tensor]] = {
    "PML NormalizedSoftmaxLoss": normalized_softmax,
    "PML ProxyNCALoss": proxy_nca,
}
"""Those of a library that `make bench` installs."""


def contrast_peers() -> dict[str, Callable[..., Tensor]]:
    """Those that can be imported here, by the name a table shows."""
    peers: dict[str, Callable[..., Tensor]] = {}
    if hasattr(F, "linear_cross_entropy"):
        peers["F.linear_cross_entropy"] = linear_cross_entropy
    if find_spec("pytorch_metric_learning") is not None:
        peers |= OPTIONAL
    return peers
