"""A network that runs without this code: a `torch.export` program, and ONNX."""

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

_EXTRA: Final = ("onnx", "onnxscript")


class _Plain(nn.Module):
    """Give a tuple, which needs no class of this code where the program is loaded."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = self.network(images)
        return logits, features


def exported(network: Segmenter, size: tuple[int, int]) -> Any:
    """Trace a network on the CPU, in evaluation mode, as a program; its own mode stays.

    The program takes images (B, 3, *size), float in [0, 1], RGB, with any B, and returns logits
    and features.
    """
    training = network.training
    # With one example the batch size would be taken for a constant.
    example, any_batch = torch.zeros(2, 3, *size), {"images": {0: torch.export.Dim("batch")}}
    try:
        plain = _Plain(network).eval()
        return torch.export.export(plain, (example,), dynamic_shapes=any_batch)
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
    if any(find_spec(name) is None for name in _EXTRA):
        hint = "Hint: pip install 'protocontrast[onnx]'."
        return f"No {path.name}: it needs {' and '.join(_EXTRA)}. {hint}"
    # The exporter tells of operators of torchvision, which no network here has.
    logger = logging.getLogger("torch.onnx._internal.exporter")
    level = logger.level
    logger.setLevel(logging.ERROR)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits", "features"]}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: Any = torch.onnx.export(program, **names, verbose=False, external_data=False)
            content = made.model_proto.SerializeToString()
    # The exporter wraps whatever went wrong in a class of its own.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return f"No {path.name}: ONNX does not allow this network ({reason[-1].strip()})."
    finally:
        logger.setLevel(level)
    write_atomically(path, content)
    return ""
