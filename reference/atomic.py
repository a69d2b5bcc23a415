"""Files that are either whole or absent, and folders that are never reused by mistake."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file in one step: a reader, or an interrupted run, sees all of it or none.

    Args:
        path: the file; missing folders above it are made, an older file is replaced.
        content: text, written as UTF-8, or bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two commands may write the same file at the same time, such as a drawn image.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def replace_durably(partial: Path, path: Path) -> None:
    """Give a written file its name in one step that a power failure does not undo.

    Args:
        partial: the file, whole and on the disk.
        path: its name; an older file of that name is replaced.
    """
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name when it is whole and on the disk, or not at all.

    Args:
        path: the file; missing folders above it are made, an older file is replaced at the end.

    Yields:
        BinaryIO: to be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        replace_durably(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def require_new_folder(caller: str, folder: Path, hint: str, *, argument: str = "run") -> None:
    """Refuse a place that already holds something.

    Args:
        caller: begins the sentence.
        folder: where results are to be written; it may be missing or empty.
        hint: what to do instead, one sentence.
        argument: what the caller calls the folder.

    Raises:
        ValueError: the path is a file, or a folder with anything in it.
    """
    if folder.is_dir():
        entries = sorted(entry.name for entry in folder.iterdir())
        if not entries:
            return
        found = f"{folder}, which holds {entries[0]}"
        if len(entries) > 1:
            found += f" and {len(entries) - 1} more"
    elif folder.exists():
        found = f"{folder}, which is a file"
    else:
        return
    raise ValueError(
        f"{caller}: expected {argument} to be a new or empty folder, got {found}. {hint}"
    )
