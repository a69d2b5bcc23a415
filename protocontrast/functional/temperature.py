"""A temperature that is a number, or a tensor that is annealed or learnt."""

import torch
from torch import Tensor

from protocontrast.checks import check_floating, check_positive, sentence
from protocontrast.ops.backend import is_plain


def check_temperature(temperature: object) -> None:
    """A finite number above 0, or a floating 0-d tensor of one.

    What a tensor holds is looked at on the CPU alone, and only where it holds something.
    """
    if not isinstance(temperature, Tensor):
        check_positive("temperature", temperature)  # type: ignore[arg-type]
        return
    check_floating("temperature", temperature)
    if temperature.dim() != 0:
        requirement = "to be a number or a tensor of shape ()"
        hint = "temperature.squeeze() has one."
        raise ValueError(sentence("temperature", requirement, tuple(temperature.shape), hint))
    if _may_be_read(temperature):
        check_positive("temperature", float(temperature.detach()))


def _may_be_read(temperature: Tensor) -> bool:
    """Whether its value can be looked at, which nobody waits for and no program keeps."""
    on_host = temperature.device.type == "cpu" and not torch.compiler.is_compiling()
    return on_host and is_plain(temperature.detach())


def read_temperature(
    temperature: float | Tensor, like: Tensor, name: str = "features"
) -> float | Tensor:
    """The checked temperature, as `placed_temperature` gives it."""
    check_temperature(temperature)
    return placed_temperature(temperature, like, name)


def placed_temperature(
    temperature: float | Tensor, like: Tensor, name: str = "features"
) -> float | Tensor:
    """A number, or a tensor on the CPU or beside `like` where its value cannot be asked for.

    A tensor is wide, and requires a gradient only where one is wanted.
    """
    if not isinstance(temperature, Tensor):
        return float(temperature)
    if temperature.device not in (torch.device("cpu"), like.device):
        where = "on cpu" if like.device.type == "cpu" else f"on cpu or {like.device}"
        requirement = f"{where} like {name}"
        raise ValueError(sentence("temperature", requirement, temperature.device))
    if not (temperature.requires_grad and torch.is_grad_enabled()):
        temperature = temperature.detach()
        if _may_be_read(temperature):
            return float(temperature)
    return temperature if temperature.dtype == torch.float64 else temperature.float()
