"""The folder of a run: one process at a time, never reused by mistake, resumed where it stopped.

``settings.json`` and ``origin.json`` say where its numbers come from, ``checkpoints/`` holds the
newest states by iteration; ``last.pth`` is the newest of them, ``best.pth`` the best scored.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from reference.run.files import (
    durable_file,
    remove_partials,
    require_new_folder,
    sync_folder,
    write_atomically,
    writing,
)

SETTINGS: Final = "settings.json"
ORIGIN: Final = "origin.json"
CHECKPOINTS: Final = "checkpoints"
LAST: Final = "last.pth"
BEST: Final = "best.pth"
LOCK: Final = "lock"
_DIGITS: Final = 8
_HERE: Final = Path(__file__).resolve().parent
# No trained number depends on these; the layouts, data.source_set and data.target_set, are not
# among them.
_MAY_CHANGE: Final = {
    *("data.workers", "data.cache_mib", "data.max_bad", "data.root", "data.source", "data.target"),
    *("data.source_labels", "data.target_labels", "data.val_images", "data.val_labels"),
}
_LENGTHS: Final = {"source.iterations", "adaptation.iterations"}
# A worker that outlives its killed parent would otherwise keep the folder locked.
_LOCKED: Final[set[int]] = set()


def _close_in_child() -> None:
    for opened in _LOCKED:
        with contextlib.suppress(OSError):
            os.close(opened)
    _LOCKED.clear()


os.register_at_fork(after_in_child=_close_in_child)


def as_plain(settings: Any) -> dict[str, Any]:
    """Return a tree of dataclasses as tables, lists, numbers and words, as JSON holds them."""
    plain: dict[str, Any] = _plain(asdict(settings))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def flat(table: Mapping[str, Any], front: str = "") -> dict[str, Any]:
    """Return plain settings as one table of dotted names, such as ``data.root``."""
    names: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            names |= flat(value, f"{front}{name}.")
        else:
            names[front + name] = value
    return names


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List the settings that differ and would change what is trained, as "name: before -> now"."""
    before, now = flat(stored), flat(wanted)
    return [
        f"{name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
        and name not in _MAY_CHANGE
        and not name.startswith("reporting.")
    ]


def commit(folder: Path = _HERE) -> str | None:
    """Return the commit of this checkout, with "+changes" where files differ; None without git."""
    try:
        head, changed = (
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changed else "")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(
            f"train: expected JSON in {path}, got something else ({error})."
        ) from error


class RunFolder:
    """A run's folder, held by one process (of each rank the main one) while the block lasts.

    Entering refuses what must not be trained into, and reads where the run stopped; it writes
    nothing but the lock. `record` is the first to write.

    Args:
        path: of the folder.
        plain: settings of the run, as `as_plain` gives them.
        resume: go on with a run that is there.
        is_main: whether this process writes; the others only read.
        broadcast: gives every rank the main one's value, so that all refuse together.

    Attributes:
        checkpoint: the newest whole one; None where the run begins.
        notes: sentences that a person should see as warnings.

    Raises:
        ValueError: on entering; the folder holds something else, another process trains there, its
            run began with other settings, or none of its checkpoints is whole.
    """

    def __init__(
        self,
        path: Path,
        plain: Mapping[str, Any],
        *,
        resume: bool,
        is_main: bool = True,
        broadcast: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        self.path, self.plain = path, dict(plain)
        self.resume, self.is_main, self._broadcast = resume, is_main, broadcast
        self.keep = int(self.plain.get("reporting", {}).get("keep", 2))
        self.checkpoint: dict[str, Any] | None = None
        self.notes: list[str] = []
        self._damaged: list[Path] = []
        self._made = False
        self._lock: int | None = None

    def __enter__(self) -> RunFolder:
        """Take the folder."""
        problem: str | None = None
        stored: Path | None = None
        if self.is_main:
            try:
                stored = self._take()
            except ValueError as error:
                problem = str(error)
                self._release()
        problem, stored = self._broadcast((problem, stored))
        if problem is not None:
            raise ValueError(problem)
        if stored is not None and not self.is_main:
            self.checkpoint = _read(stored)
        return self

    def __exit__(self, *error: object) -> None:
        """Give the folder back; one that stayed empty goes away."""
        self._release()

    def _take(self) -> Path | None:
        begun = (self.path / SETTINGS).is_file()
        if not (self.resume and begun):
            hint = "Hint: choose another one with --folder, or go on with --resume auto."
            require_new_folder("train", self.path, hint, besides=(LOCK,))
        self._made = not self.path.exists()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        if not begun:
            return None
        self._refuse_other_settings(_json(self.path / SETTINGS))
        stored = self._newest_whole()
        if self.checkpoint is not None:
            self._refuse_other_settings(self.checkpoint["settings"])
        return stored

    def _take_lock(self) -> None:
        path = self.path / LOCK
        while self._lock is None:
            with writing(path):
                opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(opened, 300).decode(errors="replace").strip()
                os.close(opened)
                # It belongs to the run that is going on.
                self._made = False
                raise ValueError(
                    f"train: expected {self.path} to be used by one process, got a second one "
                    f"beside {holder or 'another'}. Hint: wait until that one ends, stop it, or "
                    "choose another folder with --folder."
                ) from error
            except OSError as error:
                self.notes.append(
                    f"this disk cannot lock {path} ({error.strerror}); see that no second process "
                    "trains in the folder."
                )
            # The one before may have removed the file between our two calls.
            if path.exists() and os.fstat(opened).st_ino == path.stat().st_ino:
                self._lock = opened
                _LOCKED.add(opened)
            else:
                os.close(opened)
        with writing(path):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def _release(self) -> None:
        if self._made and {entry.name for entry in self.path.iterdir()} <= {LOCK}:
            (self.path / LOCK).unlink(missing_ok=True)
            self.path.rmdir()
        self._made = False
        if self._lock is not None:
            _LOCKED.discard(self._lock)
            os.close(self._lock)
            self._lock = None

    def _refuse_other_settings(self, stored: Mapping[str, Any]) -> None:
        other = differences(stored, self.plain)
        if not other:
            return
        hint = "give the old ones, or another folder with --folder."
        if {line.partition(":")[0] for line in other} <= _LENGTHS:
            hint = (
                "the learning rate falls over the length a run began with, so give the old one to "
                "go on; to train longer, begin another run with --folder NEW --stages adapt "
                f"--begin {self.path / LAST} and --adaptation.iterations as many as to add."
            )
        raise ValueError(
            f"train: expected the settings that {self.path} began with, got {len(other)} other: "
            f"{'; '.join(other)}. Hint: {hint}"
        )

    def checkpoints(self) -> list[Path]:
        """List the checkpoints by iteration, the oldest first."""
        return sorted((self.path / CHECKPOINTS).glob(f"{'[0-9]' * _DIGITS}.pth"))

    def _newest_whole(self) -> Path | None:
        reasons = []
        for path in reversed(self.checkpoints()):
            try:
                self.checkpoint = _read(path)
            except ValueError as error:
                reasons.append(str(error))
                self._damaged.append(path)
                continue
            if reasons:
                names = ", ".join(map(str, self._damaged))
                self.notes.append(
                    f"{names} cannot be read, so the run goes on from the older {path}. "
                    f"The reason: {reasons[0]}"
                )
            return path
        if reasons:
            raise ValueError(
                f"train: expected a whole checkpoint in {self.path / CHECKPOINTS}, got "
                f"{len(reasons)} that cannot be read: {reasons[0]}"
            )
        return None

    def record(self, iteration: int) -> list[str]:
        """Write settings and origin of this start, and clear away what a killed one left.

        Args:
            iteration: that the run starts from.

        Returns:
            list: sentences that a person should see as warnings.

        Raises:
            ValueError: the folder cannot be written to.
        """
        if not self.is_main:
            return []
        from reference.run.ranks import machine, versions

        remove_partials(self.path)
        for path in self._damaged:
            path.replace(path.with_name(f"{path.name}.damaged"))
        if self._damaged:
            _also_named(self.checkpoints()[-1], self.path / LAST)
        self._damaged.clear()
        path = self.path / ORIGIN
        starts = _json(path)["starts"] if path.is_file() else []
        start = {
            "iteration": iteration,
            "command": shlex.join(sys.orig_argv),
            "commit": commit(),
            "versions": versions(),
            "machine": machine(),
        }
        if starts and iteration:
            self.notes += _other_bits(starts[-1], start)
        write_atomically(path, json.dumps({"starts": [*starts, start]}, indent=2) + "\n")
        if not (self.path / SETTINGS).is_file():
            write_atomically(self.path / SETTINGS, json.dumps(self.plain, indent=2) + "\n")
        return self.notes

    def save(self, iteration: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, then point ``last.pth`` to it, then remove the oldest.

        Raises:
            ValueError: the disk is full; the older checkpoints are as they were.
        """
        if not self.is_main:
            return
        path = self.path / CHECKPOINTS / f"{iteration:0{_DIGITS}d}.pth"
        _write(path, state)
        _also_named(path, self.path / LAST)
        for old in self.checkpoints()[: -self.keep]:
            old.unlink()

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Write ``best.pth``; before the checkpoint that remembers its score, never after."""
        if self.is_main:
            _write(self.path / BEST, state)


def _write(path: Path, state: Mapping[str, Any]) -> None:
    import torch

    with durable_file(path) as file:
        torch.save(dict(state), file)


def _read(path: Path) -> dict[str, Any]:
    from reference.networks.tensor_files import read_stored

    state: dict[str, Any] = read_stored(path)
    return state


def _also_named(path: Path, name: Path) -> None:
    """Give a file a second name in one step, without a second copy where the disk can."""
    second = name.with_name(f"{name.name}.{os.getpid()}.partial")
    try:
        second.unlink(missing_ok=True)
        os.link(path, second)
        os.replace(second, name)
        sync_folder(name.parent)
    except OSError:
        with durable_file(name) as file:
            file.write(path.read_bytes())


def _other_bits(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what makes the last bits of a resumed run differ from those of one that went through."""
    pairs = {
        "number of threads (OMP_NUM_THREADS)": ("machine", "threads"),
        "number of ranks": ("machine", "ranks"),
        "version of torch": ("versions", "torch"),
    }
    return [
        f"the run goes on with {is_now} as the {name}, {was} before: its numbers are as good, but "
        "not the same bits as those of a run without a break."
        for name, (part, key) in pairs.items()
        if (was := before.get(part, {}).get(key)) != (is_now := now[part][key])
    ]
