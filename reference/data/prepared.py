"""Reader of a smaller copy of a set, made by ``python -m reference.prepare``.

Images are JPEG files, labels PNG files of train ids, in the folders of the original. A manifest
beside them, one for each split, names every pair.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from reference.data.classes import ByteArray
from reference.data.faults import Fault, refuse
from reference.data.picture_files import TRAIN_IDS, decode_ids, decode_image, to_train_ids

SetName = Literal["gta5", "synthia", "cityscapes"]


@dataclass(frozen=True)
class Manifest:
    """What a prepared split holds.

    Args:
        name: of the set.
        split: of the set.
        source: root of the original.
        image_divisor: images are scaled to 1 / this.
        label_divisor: labels likewise; None where there are none.
        pairs: stem, image file and label file ("" without labels) of each pair, relative to the
            folder of the manifest.
    """

    name: str
    split: str
    source: str
    image_divisor: int
    label_divisor: int | None
    pairs: tuple[tuple[str, str, str], ...]

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self)) + "\n"


def manifest_path(root: Path, split: str) -> Path:
    """Return where the manifest of a split lies."""
    return root / f"prepared_{split}.json"


def read_manifest(root: Path, split: str) -> Manifest | None:
    """Return the manifest of a split, or None where there is none.

    Args:
        root: folder of the prepared set.
        split: of the set.

    Raises:
        DataError: the file is damaged.
    """
    path = manifest_path(root, split)
    if not path.is_file():
        return None
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        pairs = tuple((str(s), str(image), str(labels)) for s, image, labels in stored.pop("pairs"))
        return Manifest(**stored, pairs=pairs)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        cause, fix = "another program has changed it", "prepare the set into a new folder"
        wanted, found = "to be a manifest", "a damaged file"
        raise refuse("Prepared", Fault("unreadable", path, wanted, found, cause, fix)) from error


class Prepared:
    """A prepared split.

    Args:
        root: folder of the prepared set.
        split: of the set; "train" for GTA5 and SYNTHIA.
        labels: whether labels will be read. With False the reader holds no path to one.

    Raises:
        ValueError: labels are wanted and were not prepared.
        DataError: there is no manifest, it is damaged, or a file that it names is missing.
    """

    def __init__(self, root: str | Path, split: str = "train", *, labels: bool = True) -> None:
        self.root = Path(root)
        self.split = split
        self.has_labels = labels
        manifest = read_manifest(self.root, split)
        if manifest is None:
            path, cause = manifest_path(self.root, split), "the split was not prepared there"
            fix = "run python -m reference.prepare"
            raise refuse("Prepared", Fault("missing", path, "to be a manifest", "none", cause, fix))
        if labels and manifest.label_divisor is None:
            raise ValueError(
                f"Prepared: expected labels of {split} in {self.root}, got a copy without. "
                "Hint: prepare the set into another folder with --labels."
            )
        self.name = manifest.name
        self.stems = tuple(stem for stem, _, _ in manifest.pairs)
        self.image_files = tuple(self.root / image for _, image, _ in manifest.pairs)
        self.label_files = tuple(self.root / file for _, _, file in manifest.pairs if labels)
        self._require_files()

    def _require_files(self) -> None:
        files = self.image_files + self.label_files
        missing = [path for path in files if not path.is_file()]
        if missing:
            found = f"none; {len(missing)} of {len(files)} files are missing"
            cause, fix = "preparing was stopped", "run the same command again, which goes on"
            fault = Fault("missing", missing[0], "to be a prepared file", found, cause, fix)
            raise refuse("Prepared", fault)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_files)

    def image(self, index: int) -> ByteArray:
        """Return image `index`, uint8 (H, W, 3), RGB.

        Raises:
            DataError: the file is empty or damaged.
        """
        return decode_image("Prepared.image", self.image_files[index])

    def labels(self, index: int) -> ByteArray:
        """Return the train ids of image `index`, uint8 (H, W), 255 where not scored.

        They may be larger than the image: labels that scores are taken with keep their size.

        Raises:
            ValueError: the reader was made without labels.
            DataError: the file is empty or damaged.
        """
        if not self.has_labels:
            raise ValueError(
                "Prepared.labels: expected a reader made with labels=True, got labels=False."
            )
        path = self.label_files[index]
        ids = decode_ids("Prepared.labels", path, ("L",))
        return to_train_ids("Prepared.labels", path, ids, TRAIN_IDS)
