"""Files of tensors, read without running anything that they hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file


def read_stored(path: Path) -> Any:
    """Read a file of tensors and plain values; nothing in the file is executed.

    Args:
        path: a ``.safetensors`` file, or one that `torch.save` wrote.

    Returns:
        What the file holds, on the CPU.

    Raises:
        ValueError: there is no such file, it is damaged, or it holds something else than tensors
            and plain values.
    """
    if not path.is_file():
        raise ValueError(f"read_stored: expected a file {path}, got none.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"read_stored: expected tensors and plain values in {path}, got a pickle that torch "
            "refuses to load without running code, or no pickle. Hint: save the state dict alone, "
            "or convert the file to safetensors where you trust it."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"read_stored: expected a readable file of weights, got {path} ({reason}). "
            "Hint: the file is damaged; download or copy it again."
        ) from error
