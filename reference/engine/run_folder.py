"""The folder of a run: never reused by mistake, and enough to know where its numbers come from."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from reference.atomic import require_new_folder, write_atomically
from reference.engine.checkpoints import Checkpoints
from reference.engine.recorded_settings import differences
from reference.provenance import code_digest, machine, versions

SETTINGS: Final = "settings.json"
ORIGIN: Final = "origin.json"


def commit(folder: Path | None = None) -> str | None:
    """Return the commit of this checkout, with "+changes" where files differ; None without git.

    Args:
        folder: inside the checkout; None takes that of this file.
    """
    folder = folder or Path(__file__).resolve().parent
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


def refuse_other_settings(stored: Mapping[str, Any], wanted: Mapping[str, Any], run: Path) -> None:
    """Refuse to go on with other settings than a run began with.

    Args:
        stored: settings of the run.
        wanted: settings now.
        run: its folder.

    Raises:
        ValueError: they differ in something that changes what is trained.
    """
    found = differences(stored, wanted)
    if found:
        raise ValueError(
            f"train: expected the settings that {run} began with, got {len(found)} other: "
            f"{'; '.join(found)}. Hint: give the old ones, or another folder with --run."
        )


def open_run(
    run: Path, plain: Mapping[str, Any], checkpoints: Checkpoints, *, resume: bool
) -> dict[str, Any] | None:
    """Claim a folder for a run, or find where its run stopped.

    Args:
        run: the folder.
        plain: settings of the run, as `recorded_settings.as_plain` gives them.
        checkpoints: of the folder.
        resume: whether a run that is there may be continued.

    Returns:
        dict: the newest checkpoint; None where the run begins.

    Raises:
        ValueError: the folder holds something and is not to be continued, holds no run, or its
            run began with other settings.
    """
    path = run / SETTINGS
    if not (resume and path.is_file()):
        hint = "choose another one with --run, or go on with --resume auto."
        require_new_folder("train", run, f"Hint: {hint}")
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"train: expected JSON in {path}, got something else ({error})."
        ) from error
    refuse_other_settings(stored, plain, run)
    held = checkpoints.newest()
    if held is not None:
        refuse_other_settings(held["settings"], plain, run)
    return held


def record(run: Path, plain: Mapping[str, Any], iteration: int) -> None:
    """Write settings and origin of a run; a resumed one adds its command to the list.

    Args:
        run: the folder.
        plain: the settings.
        iteration: that it starts from.
    """
    path = run / ORIGIN
    starts = json.loads(path.read_text(encoding="utf-8"))["starts"] if path.is_file() else []
    starts.append(
        {
            "iteration": iteration,
            "command": shlex.join(sys.orig_argv),
            "commit": commit(),
            "code": code_digest(),
            "versions": versions(),
            "machine": machine(),
        }
    )
    write_atomically(path, json.dumps({"starts": starts}, indent=2) + "\n")
    if not (run / SETTINGS).is_file():
        write_atomically(run / SETTINGS, json.dumps(plain, indent=2) + "\n")
