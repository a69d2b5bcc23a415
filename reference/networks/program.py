"""A network as a `torch.export` program: one file that runs without this code."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from reference.atomic import write_atomically
from reference.networks.output import Segmenter


class _Plain(nn.Module):
    """Give a tuple, which needs no class of this code where the program is loaded."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = self.network(images)
        return logits, features


def write_program(path: Path, network: Segmenter, size: tuple[int, int]) -> None:
    """Write a network in evaluation mode as a program.

    The program takes images (B, 3, H, W), float in [0, 1], RGB, with any B and the given H and
    W, and returns logits and features. `torch.export.load(path).module()` runs it.

    Args:
        path: the file, usually ``*.pt2``.
        network: on the CPU; it is left in the mode it was in.
        size: height and width of the images, pixels.
    """
    training = network.training
    # With one example the batch size would be taken for a constant.
    example = torch.zeros(2, 3, *size)
    try:
        program = torch.export.export(
            _Plain(network).eval(),
            (example,),
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )
    finally:
        network.train(training)
    content = io.BytesIO()
    torch.export.save(program, content)
    write_atomically(path, content.getvalue())
