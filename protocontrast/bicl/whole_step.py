"""A step of `BiCL` that kernels take whole: the same numbers from a tenth of the launches."""

from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor
from torch import distributed as dist

from protocontrast.bank.moments import Moments
from protocontrast.bicl.labels import GridLabels
from protocontrast.calls import Domain, StepCall
from protocontrast.functional.maps import WHOLE_CLASS
from protocontrast.functional.target_pass import bicl_step, is_served

if TYPE_CHECKING:
    from protocontrast.bicl.module import BiCL


def _over_ranks(bicl: "BiCL", mean: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    mean, count, _ = bicl.source_bank.shared(Moments(mean, count, None))
    return mean, count


def whole_step(
    bicl: "BiCL",
    maps: tuple[Tensor, Tensor],
    of_source: GridLabels,
    static: GridLabels | None,
    temperature: float | Tensor,
) -> tuple[Tensor, ...] | None:
    """What `BiCLOutput` holds; None where the parts of the step have to be taken one by one."""
    if bicl.prototypes != "bank" or not is_served(*maps, bicl.backend):
        return None
    banks, bias = (bicl.source_bank, bicl.target_bank), bicl.domain_bias
    states = banks[0].state[:4], banks[1].state[:4], (bias.bias, bias.present, bias.count)
    learnt = isinstance(temperature, Tensor) and temperature.requires_grad
    ranks = dist.is_available() and dist.is_initialized()
    if learnt or (ranks and bicl.balance == "class"):
        return None
    if any([bank.rule != "ema" or bank.variance is not None for bank in banks]):
        return None
    if banks[0].normalize != banks[1].normalize:
        return None
    if not all([buffer.is_contiguous() for state in states for buffer in state]):
        return None
    grid, counts, cell = static or (None, None, None)
    call = StepCall(
        Domain(maps[0], of_source.grid, of_source.targets), maps[1], grid, counts, cell, *states,
        float(bicl.threshold), bicl.measure, temperature, bicl.absent == "floor",
        banks[0].normalize, bicl.ignore_index,
        (banks[0].momentum, banks[1].momentum, bias.momentum), bias.warmup == "copy",
        bicl.calibrate, WHOLE_CLASS if bicl.balance == "class" else 0, bicl.weights,
        partial(_over_ranks, bicl) if ranks else None,
    )  # fmt: skip
    return bicl_step(call)
