"""Files that are either whole or absent, and folders that are never reused by mistake."""

import itertools
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from reference.data.settings import refusal

if TYPE_CHECKING:
    from PIL import Image

_COUNTER: Final = itertools.count()
_PARTIAL: Final = re.compile(r"\.(\d+)(-\d+)?\.partial$")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk, or a folder that may not be written to, into one sentence (ValueError)."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, RuntimeError):
            # torch.save hides the disk's error in one of its own.
            if "inline_container" not in reason:
                raise
            reason = "an error of the disk, which may be full"
        raise ValueError(
            f"writing: expected to write {path}, got: {reason}. Hint: free some space or make the "
            "folder writable, then start again: train with --resume auto, others with a new --out "
            "where results are in the old one; what was there before is as it was."
        ) from error


@contextmanager
def durable_file(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file that gets its name when it is whole and on the disk, or not at all.

    Missing folders above it are made; an older file of that name is replaced at the end. With
    `sync` the disk is waited for, so that a power failure cannot undo it.
    """
    # Two processes, or two threads, may write the same file; a long name leaves no room for more.
    partial = path.with_name(f"{path.name[:40]}.{os.getpid()}-{next(_COUNTER)}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                yield file
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(partial, path)
            if sync:
                sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power failure."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file in one step: a reader, or an interrupted run, sees all of it or none."""
    with durable_file(path, sync=False) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_picture(path: Path, picture: "Image.Image", kind: str = "PNG", **how: Any) -> None:
    """Write a picture in one step; `how` are options of Pillow."""
    with durable_file(path, sync=False) as file:
        picture.save(file, format=kind, **how)


def read_json(caller: str, path: Path, absent: Any = None) -> Any:
    """Return the table that a file of JSON holds, or `absent` where there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else absent
    except (ValueError, TypeError, OSError) as error:
        told = f"{caller}: expected JSON in {path}, got something else ({error})."
        raise ValueError(told) from error


def write_json(path: Path, plain: Any) -> None:
    """Write plain values for people and programs, in one step."""
    write_atomically(path, json.dumps(plain, indent=2) + "\n")


def entries(folder: Path) -> list[str]:
    """List what a folder holds, but for what killed processes may have left half written."""
    return sorted(each.name for each in folder.iterdir() if not _PARTIAL.search(each.name))


def remove_partials(folder: Path) -> None:
    """Remove what killed processes left half written below a folder, where it may be changed."""
    for path in [path for path in folder.rglob("*.partial") if path.is_file() and _is_stale(path)]:
        with suppress(OSError):
            path.unlink()


def _is_stale(path: Path) -> bool:
    if (match := _PARTIAL.search(path.name)) is None:
        return False
    try:
        os.kill(int(match[1]), 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    # Containers give every run the same number, so our own may be an older run's too.
    return int(match[1]) == os.getpid()


def require_new_folder(
    caller: str, folder: Path, hint: str, *, argument: str = "folder", besides: tuple[str, ...] = ()
) -> None:
    """Refuse a place for results that holds something besides some names; it may be missing."""
    got = "which is a file" if folder.exists() else ""
    if folder.is_dir():
        held = [name for name in entries(folder) if name not in besides]
        more = f" and {len(held) - 1} more" if len(held) > 1 else ""
        got = f"which holds {held[0]}{more}" if held else ""
    if got:
        raise refusal(caller, argument, f"{folder}, {got}", "to be a new or empty folder", hint)
    if not besides:
        remove_partials(folder)
