"""One way to open any set by its name, downloaded or prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Final, get_args

from reference.data.cityscapes import Cityscapes, list_cityscapes
from reference.data.gta5 import GTA5, list_gta5
from reference.data.prepared import Prepared, SetName, read_manifest
from reference.data.readers import FileReader, Listing
from reference.data.synthia import Synthia, list_synthia

SET_NAMES: Final[tuple[SetName, ...]] = get_args(SetName)


def given_roots(
    caller: str, *, gta5: Path | None, synthia: Path | None, cityscapes: Path | None
) -> dict[SetName, Path]:
    """Return the folders that a command was given, by set.

    Args:
        caller: begins the sentence.
        gta5, synthia, cityscapes: root of the set; None where it was not given.

    Raises:
        ValueError: none was given.
    """
    named: dict[SetName, Path | None] = {
        "gta5": gta5,
        "synthia": synthia,
        "cityscapes": cityscapes,
    }
    found = {name: root for name, root in named.items() if root is not None}
    if not found:
        raise ValueError(
            f"{caller}: expected the root of a set, got none. Hint: give --gta5, --synthia or "
            "--cityscapes."
        )
    return found


def list_files(name: SetName, root: Path, split: str, *, labels: bool) -> Listing:
    """List the files of a downloaded set.

    Args:
        name: of the set.
        root: its folder.
        split: of Cityscapes; the others have none.
        labels: whether to look for labels of Cityscapes; the others always have them.

    Raises:
        DataError: a folder is missing or without images.
    """
    if name == "cityscapes":
        return list_cityscapes(root, split, labels=labels)
    return list_gta5(root) if name == "gta5" else list_synthia(root)


def open_set(
    name: SetName, root: str | Path, split: str = "train", *, labels: bool = True
) -> FileReader:
    """Open a set: as downloaded, or the copy that ``python -m reference.prepare`` made of it.

    Args:
        name: of the set.
        root: its folder.
        split: of Cityscapes; the others have one, "train".
        labels: whether labels of Cityscapes will be read; with False none is touched.

    Raises:
        ValueError: an unknown name, a split or `labels` that the set does not have, or a folder
            that its reader refuses.
    """
    if name not in SET_NAMES:
        raise ValueError(f"open_set: expected one of {', '.join(SET_NAMES)}, got {name}.")
    if name != "cityscapes" and (split != "train" or not labels):
        raise ValueError(
            f"open_set: expected split train with labels of {name}, got {split} with "
            f"labels={labels}."
        )
    root = Path(root)
    manifest = read_manifest(root, split)
    if manifest is not None:
        if manifest.name != name:
            raise ValueError(
                f"open_set: expected {root} to hold {name}, got a copy of {manifest.name}."
            )
        return Prepared(root, split, labels=labels)
    if name == "cityscapes":
        return Cityscapes(root, split, labels=labels)
    return GTA5(root) if name == "gta5" else Synthia(root)
