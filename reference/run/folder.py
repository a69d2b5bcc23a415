"""The folder of a run: one process at a time, never reused by mistake, resumed where it stopped.

``settings.json`` and ``origin.json`` say where its numbers come from, ``checkpoints/`` holds the
newest states by iteration; ``last.pth`` is the newest of them, ``best.pth`` the best scored.
"""

import fcntl
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_type_hints

from reference.data.settings import refusal, require
from reference.run import files
from reference.run.files import durable_file, writing
from reference.settings import Settings

if TYPE_CHECKING:
    from reference.run.ranks import Ranks

T = TypeVar("T")

SETTINGS: Final = "settings.json"
ORIGIN: Final = "origin.json"
CHECKPOINTS: Final = "checkpoints"
LAST: Final = "last.pth"
BEST: Final = "best.pth"
LOCK: Final = "lock"
CLASSES: Final = "classes.json"
PANELS: Final = "panels"
PROTOTYPES: Final = "prototypes"
# Beside runs: which of them a page shows, with captions and roles.
COMPARISON: Final = "comparison.json"
_DIGITS: Final = 8
_HERE: Final = Path(__file__).resolve().parent
# No trained number depends on these. It does on the layouts, data.source_set and target_set.
MAY_CHANGE: Final = {
    *("data.workers", "data.cache_mib", "data.max_bad", "data.root", "data.source", "data.target"),
    *("data.source_labels", "data.target_labels", "data.val_images", "data.val_labels"),
    *("data.drawn.target_val", "machine.backend"),
}
_LENGTHS: Final = {"source.iterations", "adaptation.iterations"}
# Settings of former versions, at the value that is now the only one.
_GONE: Final = {"data.drawn.varied": False}


def as_plain(settings: Any) -> dict[str, Any]:
    """Return a tree of dataclasses as tables, lists, numbers and words, as JSON holds them."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=str))
    return plain


def from_plain(kind: type[T], plain: Mapping[str, Any]) -> T:
    """Read a dataclass from what `as_plain` gives of it; what it does not know is left out."""
    hints = get_type_hints(kind)
    known = {name: value for name, value in plain.items() if name in hints}
    return kind(**{name: _as_hinted(hints[name], value) for name, value in known.items()})


def _as_hinted(hint: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        inner = is_dataclass(hint)
        return (
            from_plain(hint, value) if inner else {n: _as_hinted(None, v) for n, v in value.items()}
        )
    if isinstance(value, list):
        return tuple(_as_hinted(None, each) for each in value)
    return Path(value) if isinstance(value, str) and Path in get_args(hint) else value


def flat(table: Mapping[str, Any], front: str = "") -> dict[str, Any]:
    """Return plain settings as one table of dotted names, such as ``data.root``."""
    names: dict[str, Any] = {}
    for name, value in table.items():
        within = isinstance(value, Mapping)
        names |= flat(value, f"{front}{name}.") if within else {front + name: value}
    return names


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List the settings that differ and would change what is trained, as "name: before -> now".

    One that is newer than the stored run was then at its default, which leaves runs as they were.
    """
    usual, now = _GONE | flat(as_plain(Settings())), _GONE | flat(wanted)
    before = {name: value for name, value in usual.items() if name in now} | flat(stored)
    return [
        f"{name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
        and name not in MAY_CHANGE
        and not name.startswith("reporting.")
    ]


def labels_of(run: Path, phase: str) -> Path:
    """Where the static labels of a phase lie."""
    return run / "labels" / phase.replace(" ", "-")


def command() -> str:
    """Return the line that started this process, or the command that spawned it."""
    main = sys.modules.get("__mp_main__")
    if main is None:
        return shlex.join(sys.orig_argv)
    spec = main.__spec__
    words = sys.argv if spec is None else ["-m", spec.name, *sys.argv[1:]]
    return shlex.join([sys.executable, *words])


def commit(folder: Path = _HERE) -> str | None:
    """Return the commit of this checkout, with "+changes" where files differ; None without git."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


class RunFolder:
    """A run's folder, held by one process (of each rank the main one) while the block lasts.

    Entering refuses a folder that holds something else, that another process trains in, whose run
    began with other settings, or without a whole checkpoint; all ranks refuse together. It writes
    nothing but the lock; `record` is the first to write. `plain` are the settings of the run, as
    `as_plain` gives them; with `resume` a run that is there goes on.
    """

    def __init__(
        self, path: Path, plain: Mapping[str, Any], ranks: "Ranks", *, resume: bool
    ) -> None:
        self.path, self.plain, self.ranks, self.resume = path, dict(plain), ranks, resume
        self.checkpoint: dict[str, Any] | None = None  # the newest whole one
        self.notes: list[str] = []  # sentences that a person should see as warnings
        self._damaged: list[Path] = []
        self._made = False
        self._lock: int | None = None

    def __enter__(self) -> "RunFolder":
        problem: str | None = None
        stored: Path | None = None
        if self.ranks.is_main:
            try:
                stored = self._take()
            except ValueError as error:
                problem = str(error)
                self._release()
        problem, stored = self.ranks.broadcast((problem, stored))
        if problem is not None:
            raise ValueError(problem)
        if stored is not None and not self.ranks.is_main:
            self.checkpoint = _read(stored)
        return self

    def __exit__(self, *error: object) -> None:
        """Give the folder back; one that stayed empty goes away."""
        self._release()

    def check(self) -> bool:
        """Refuse a folder by what is in it, and say whether a run began there; write nothing."""
        begun = (self.path / SETTINGS).is_file()
        if self.resume and begun:
            self._refuse_other_settings(files.read_json("train", self.path / SETTINGS))
        else:
            hint = "choose another one with --folder, or go on with --resume auto"
            files.require_new_folder("train", self.path, hint, besides=(LOCK,))
        return begun

    def _take(self) -> Path | None:
        begun = self.check()
        self._made = not self.path.exists()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        return self.find_newest() if begun else None

    def _take_lock(self) -> None:
        path = self.path / LOCK
        while self._lock is None:
            with writing(path):
                opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                # Of this process alone: a worker that outlives it does not keep the folder locked.
                fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(opened, 300).decode(errors="replace").strip()
                os.close(opened)
                # It belongs to the run that is going on.
                self._made = False
                got, one = f"a second one beside {holder or 'another'}", "to be used by one process"
                hint = "wait until that one ends, stop it, or choose another folder with --folder"
                raise refusal("train", str(self.path), got, one, hint) from error
            except OSError as error:
                self.notes.append(
                    f"this disk cannot lock {path} ({error.strerror}); see that no second process "
                    "trains in the folder."
                )
            # The one before may have removed the file between our two calls.
            if path.exists() and os.fstat(opened).st_ino == path.stat().st_ino:
                self._lock = opened
            else:
                os.close(opened)
        with writing(path):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def _release(self) -> None:
        if self._made and self.path.is_dir() and {*os.listdir(self.path)} <= {LOCK}:
            (self.path / LOCK).unlink(missing_ok=True)
            self.path.rmdir()
        self._made = False
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _refuse_other_settings(self, stored: Mapping[str, Any]) -> None:
        other = differences(stored, self.plain)
        hint = "give the old ones, or another folder with --folder"
        if {line.partition(":")[0] for line in other} <= _LENGTHS:
            hint = (
                "the learning rate falls over the length a run began with, so give the old one to "
                "go on; to train longer, begin another run with --folder NEW --stages adapt "
                f"--begin {self.path / LAST} and --adaptation.iterations as many as to add"
            )
        wanted, got = f"that {self.path} began with", f"{len(other)} other: {'; '.join(other)}"
        require("train", "the settings", got, wanted, not other, hint)

    def checkpoints(self) -> list[Path]:
        """List the checkpoints by iteration, the oldest first."""
        return sorted((self.path / CHECKPOINTS).glob(f"{'[0-9]' * _DIGITS}.pth"))

    def find_newest(self) -> Path | None:
        """Read the newest whole checkpoint into `checkpoint`; return its file, if there is one."""
        listed, reason = self.checkpoints(), ""
        for path in reversed(listed):
            try:
                held = _read(path)
            except ValueError as error:
                self._damaged.append(path)
                reason = str(error)
                told = f"{path} cannot be read, so the run goes on from an older checkpoint"
                self.notes.append(f"{told}. The reason: {reason}")
            else:
                self._refuse_other_settings(held["settings"])
                self.checkpoint = held
                return path
        if listed:
            got = f"{len(listed)} that cannot be read: {reason.removesuffix('.')}"
            raise refusal("train", "a whole checkpoint", got, f"in {self.path / CHECKPOINTS}")
        return None

    def record(self, iteration: int) -> list[str]:
        """Write settings and origin of a start, clear away what a killed one left, give `notes`."""
        if not self.ranks.is_main:
            return []
        from reference.run.ranks import machine, versions

        files.remove_partials(self.path)
        for path in self._damaged:
            path.replace(path.with_name(f"{path.name}.damaged"))
        # The newest may be damaged, or a run killed before that had its second name.
        if listed := self.checkpoints():
            _also_named(listed[-1], self.path / LAST)
        path = self.path / ORIGIN
        starts = files.read_json("train", path, {}).get("starts", [])
        start = {"iteration": iteration, "command": command(), "commit": commit()}
        backend = flat(self.plain).get("machine.backend", "auto")
        start |= {"versions": versions(), "machine": machine(backend)}
        if starts and iteration:
            self.notes += _other_bits(starts[-1], start, on_cpu=self.ranks.device.type == "cpu")
        # Before all else: a folder with settings is one in which a run began.
        if not (self.path / SETTINGS).is_file():
            files.write_json(self.path / SETTINGS, self.plain)
        files.write_json(path, {"starts": [*starts, start]})
        return self.notes

    def save(self, iteration: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, then point ``last.pth`` to it, then remove the oldest."""
        path = self.path / CHECKPOINTS / f"{iteration:0{_DIGITS}d}.pth"
        _write(path, state)
        _also_named(path, self.path / LAST)
        for old in self.checkpoints()[: -self.plain["reporting"]["keep"]]:
            old.unlink()

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Write ``best.pth``; before the checkpoint that remembers its score, never after."""
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
        files.sync_folder(name.parent)
    except OSError:
        with durable_file(name) as file:
            file.write(path.read_bytes())


def _other_bits(before: Mapping[str, Any], now: Mapping[str, Any], *, on_cpu: bool) -> list[str]:
    """Say what makes the last bits of a resumed run differ from those of one that went through."""
    threads = "number of threads (OMP_NUM_THREADS)", "machine", "threads"
    ranks = "number of ranks", "machine", "ranks"
    version = "version of torch", "versions", "torch"
    backend = "backend of the losses", "machine", "backend"
    # Before there was another one, it was eager.
    before = {**before, "machine": {"backend": "eager", **before.get("machine", {})}}
    return [
        f"the run goes on with {is_now} as the {name}, {was} before: its numbers are as good, but "
        "not the same bits as those of a run without a break."
        for name, part, key in (threads, ranks, version, *[backend] * on_cpu)
        if (was := before.get(part, {}).get(key)) != (is_now := now[part][key])
    ]
