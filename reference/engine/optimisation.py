"""How weights move: optimiser, learning rates, precision."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import torch
from torch import nn

from reference.engine.phases import Phase
from reference.engine.processes import Processes
from reference.engine.settings import Machine
from reference.engine.stage_settings import Optimiser
from reference.networks.deeplab import parameter_groups

_DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


def build_optimiser(network: nn.Module, settings: Optimiser) -> torch.optim.Optimizer:
    """Make an optimiser with a group for the backbone and one for the rest.

    Args:
        network: whose trained parameters are moved.
        settings: of the stage.
    """
    groups = parameter_groups(network, settings.learning_rate, head_factor=settings.head_factor)
    for group in groups:
        group["factor"] = group["lr"] / settings.learning_rate
    if settings.kind == "adamw":
        return torch.optim.AdamW(
            groups, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, phase: Phase, iteration: int) -> float:
    """Give every group its rate at an iteration, and return that of the backbone."""
    rate = phase.learning_rate(iteration)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]
    return rate


class Precision:
    """Numbers of the forward pass, and the scale of the loss where they are float16.

    Args:
        machine: says which.
        processes: say where.

    Raises:
        ValueError: fp16 on the CPU.
    """

    def __init__(self, machine: Machine, processes: Processes) -> None:
        device = processes.device
        name = machine.precision
        if name == "auto":
            fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
            name = "bf16" if fast else "fp32"
        if name == "fp16" and device.type != "cuda":
            raise ValueError(
                "train: expected a GPU for precision fp16, got the CPU. Hint: use fp32 or bf16."
            )
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Run the network inside this."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.name])
