"""Files of tensors: checked for damage, and read without running anything that they hold."""

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from reference.data.settings import refusal

_COPY: Final = "the file is damaged; copy or download it again"
_PAGES: Final = (b"<!doctype", b"<html", b"<?xml", b"<head")


def _damaged(path: Path, got: str, hint: str = _COPY) -> ValueError:
    return refusal("read_stored", "a whole file", f"{path}, {got}", "of tensors", hint)


def _check(path: Path) -> None:
    """Refuse what is no file of `torch.save`, and archives whose bytes are not those written."""
    with path.open("rb") as file:
        start = file.read(512)
    text = start.lstrip().lower()
    if not start.strip(b"\0"):
        raise _damaged(path, f"which holds {'nothing' if not start else 'zeros'}")
    if text.startswith(_PAGES):
        raise _damaged(path, "which is a web page", "download the file that the page links to")
    if text.startswith(b"version https://git-lfs"):
        hint = 'fetch the file itself, for instance with "git lfs pull"'
        raise _damaged(path, "which is a pointer of git-LFS", hint)
    if not start.startswith(b"PK"):
        return
    # Torch itself compares no checksum: it would read other numbers from an altered file.
    try:
        with zipfile.ZipFile(path) as archive:
            names, broken = archive.namelist(), archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        raise _damaged(path, f"an archive that is cut short or altered ({error})") from error
    if broken is not None:
        raise _damaged(path, f"an archive in which {broken} has another checksum")
    if not any(name.endswith("/data.pkl") for name in names):
        hint = "unpack it, or download the weights themselves"
        raise _damaged(path, f"a zip archive of {', '.join(names[:3]) or 'nothing'}", hint)


def require_file(caller: str, path: Path) -> None:
    """Refuse weights that are not there."""
    if not path.is_file():
        got = "no such file. Hint: docs/data.md says where to get which."
        if path.is_dir():
            got = f"a folder. Hint: name a file in it, such as {path / 'last.pth'}."
        raise ValueError(f"{caller}: expected weights in {path}, got {got}")


def read_stored(path: Path) -> Any:
    """Read a file of tensors and plain values onto the CPU; nothing in it is executed.

    The file is ``.safetensors``, or one that `torch.save` wrote. The checksums of the latter are
    compared first; files older than torch 1.6 have none. Whatever is wrong is a ValueError.
    """
    require_file("read_stored", path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        got = "a pickle that torch refuses to load without running code, or no pickle"
        hint = "save the state dict alone, or convert the file to safetensors where you trust it"
        wanted = f"and plain values in {path}"
        raise refusal("read_stored", "tensors", got, wanted, hint) from error
    except PermissionError as error:
        got = f"{path} ({error.strerror})"
        raise refusal("read_stored", "a file", got, "that may be read") from error
    except SafetensorError as error:
        raise _damaged(path, f"which cannot be read as safetensors ({error})") from error
    except (RuntimeError, EOFError, OSError, LookupError, TypeError, UnicodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _damaged(path, f"which cannot be read ({reason})") from error
