"""What lets packages be imported whose compiled parts are missing, and are not used here.

A torchvision built for CUDA finds no operators beside a torch for the CPU, and declares two of them
again for its own use; mmcv-lite has none at all, and mmseg imports them all the same.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

# What is declared here stays as long as this lives.
OPERATORS = torch.library.Library("torchvision", "FRAGMENT")


class Extension(ModuleType):
    """Has every function by name; whoever calls one is told what is missing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: object) -> None:
            raise RuntimeError(f"mmcv._ext: expected the operators of mmcv, got a call of {name}.")

        return missing


def stand_in() -> None:
    """Import torchvision, and put a module where mmcv's operators would be."""
    if find_spec("torchvision"):
        try:
            importlib.import_module("torchvision")
        except RuntimeError:  # operator torchvision::nms does not exist
            for name in ("nms", "qnms"):
                schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                OPERATORS.define(name + schema)
    if find_spec("mmcv") and not find_spec("mmcv._ext"):
        sys.modules["mmcv._ext"] = Extension("mmcv._ext")
        sys.modules["mmcv._ext"].__spec__ = ModuleSpec("mmcv._ext", None)
