"""Label a folder of images with a trained network.

    python -m reference.predict photographs --weights released/card.json --out predictions
    python -m reference.predict photographs --weights runs/gta5/last.pth --out predictions

writes three PNG files of the image's own size for every image: ``labelIds/``, class ids as the
Cityscapes server wants them, or the first of the ids that your class list gives each class, so that
the list reads them back (without ids: ``labels/``, class numbers); ``colour/``, the classes in
their colours; ``overlay/``, both blended.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from reference.commands import Use, answer, read


@dataclass(frozen=True, kw_only=True)
class Options(Use):
    """Label every image of a folder; write class ids, colours and overlays."""

    # images, PNG or JPEG, also in folders inside it; hidden files are left out
    folder: Annotated[Path, tyro.conf.Positional]


# Before torch is imported, so that --help answers at once.
OPTIONS = read(Options, "predict") if __name__ == "__main__" else None

import numpy as np
import numpy.typing as npt
from PIL import Image

from reference.data.classes import CITYSCAPES, ByteArray, ClassList
from reference.data.files import check_ends, find_files, read_image, require_whole
from reference.data.layouts import CITYSCAPES_NUMBERS
from reference.data.settings import require
from reference.evaluation.protocol import Protocol, class_scores, read_for_use
from reference.networks.release import Release
from reference.run.files import entries, write_picture
from reference.run.report import track


def find_images(folder: Path) -> list[Path]:
    """List the images of a folder and of those inside it by their names, if none is broken."""
    require("predict", "a folder of images", "none", str(folder), folder.is_dir())
    images = list(find_files(folder, "{path}", "", labels=False).values())
    require("predict", "PNG or JPEG files", "none", f"in {folder}", bool(images))
    for path in images:
        check_ends(path)
    return images


def drawings(
    pixels: ByteArray, labels: ByteArray, classes: ClassList
) -> dict[str, npt.NDArray[Any]]:
    """Draw what is written for one image, by the name of its folder.

    Shape:
        pixels (H, W, 3), uint8 RGB; labels (H, W), class numbers. Result: "labelIds", or "labels"
        of a list without ids, (H, W), uint16 with ids above 255; "colour" and "overlay" (H, W, 3).
    """
    colour = np.array(classes.colours, dtype=np.uint8)[labels]
    ids = [values[0] for values in classes.ids if values]
    if len(ids) < len(classes):
        ids = [*CITYSCAPES_NUMBERS] if classes.names == CITYSCAPES.names else []
    table = np.array(ids or range(len(classes)))
    written = table.astype(np.uint8 if table.max() < 256 else np.uint16)[labels]
    blend = (pixels.astype(np.float32) + colour.astype(np.float32)) / 2
    blended = blend.round().astype(np.uint8)
    return {"labelIds" if ids else "labels": written, "colour": colour, "overlay": blended}


def run_predict(options: Options, images: list[Path], release: Release, protocol: Protocol) -> None:
    """Label the images one by one; each file is written whole or not at all."""
    for index in track(len(images), "Labelling"):
        pixels = read_image(images[index], any_mode=True)
        scores = class_scores(release.network, pixels, pixels.shape[:2], protocol)
        labels = scores.argmax(dim=0).cpu().numpy().astype(np.uint8)
        place = images[index].relative_to(options.folder).with_suffix(".png")
        for kind, drawing in drawings(pixels, labels, release.classes).items():
            write_picture(options.out / kind / place, Image.fromarray(drawing))


def main(options: Options) -> None:

    def work() -> int:
        hint, inside = "choose another", options.folder.resolve() in options.out.resolve().parents
        require("predict", "out", options.out, f"outside {options.folder}", not inside, hint)
        images = find_images(options.folder)
        release, protocol = read_for_use("predict", options)
        require_whole(images, protocol.size, max(protocol.scales))
        run_predict(options, images, release, protocol)
        return len(images)

    count = answer(work, f"Stopped; {options.out} holds the images labelled so far.")
    kinds = ", ".join(f"{name}/" for name in entries(options.out))
    print(f"Wrote {kinds} of {count} images to {options.out}")


if OPTIONS is not None:
    main(OPTIONS)
