"""A network that runs without this code: a `torch.export` program, and ONNX."""

from __future__ import annotations

import io
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from reference.networks.output import Segmenter
from reference.run.files import write_atomically

_ONNX: Final = ("onnx", "onnxscript")


class _Plain(nn.Module):
    """Give a tuple, which needs no class of this code where the program is loaded."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = self.network(images)
        return logits, features


def exported(network: Segmenter, size: tuple[int, int]) -> Any:
    """Trace a network in evaluation mode as a program.

    The program takes images (B, 3, H, W), float in [0, 1], RGB, with any B and the given H and
    W, and returns logits and features.

    Args:
        network: on the CPU; it is left in the mode it was in.
        size: height and width of the images, pixels.
    """
    training = network.training
    # With one example the batch size would be taken for a constant.
    example = torch.zeros(2, 3, *size)
    try:
        return torch.export.export(
            _Plain(network).eval(),
            (example,),
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )
    finally:
        network.train(training)


def write_program(path: Path, program: Any) -> None:
    """Write a program of `exported`; `torch.export.load(path).module()` runs it."""
    content = io.BytesIO()
    torch.export.save(program, content)
    write_atomically(path, content.getvalue())


def write_onnx(path: Path, program: Any) -> str:
    """Write a program of `exported` as ONNX, inputs "images", outputs "logits" and "features".

    Returns:
        str: empty, or one sentence that says why there is no such file.
    """
    if missing := [name for name in _ONNX if find_spec(name) is None]:
        return (
            f"No {path.name}: it needs {' and '.join(missing)}. Hint: pip install "
            "'protocontrast[onnx]'."
        )
    # The exporter tells of operators of torchvision, which no network here has.
    logger = logging.getLogger("torch.onnx._internal.exporter")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: Any = torch.onnx.export(
                program,
                input_names=["images"],
                output_names=["logits", "features"],
                verbose=False,
                external_data=False,
            )
            content = made.model_proto.SerializeToString()
    # The exporter wraps whatever went wrong in a class of its own.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return f"No {path.name}: ONNX does not allow this network ({reason[-1].strip()})."
    finally:
        logger.setLevel(level)
    write_atomically(path, content)
    return ""
