"""Label a folder of images with a trained network.

    python -m reference.predict photographs --weights released/card.json --out predictions
    python -m reference.predict photographs --weights runs/gta5/last.pth --out predictions

writes three PNG files of the image's own size for every image: ``labelIds/``, class ids as the
Cityscapes server wants them; ``colour/``, the classes in their colours; ``overlay/``, both blended.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import torch
import tyro
from PIL import Image

from reference.atomic import require_new_folder, write_atomically
from reference.data.classes import TRAIN_TO_CITYSCAPES, ByteArray
from reference.evaluation.protocol import Protocol, Source, class_scores, protocol_for
from reference.networks.release import Release, read_trained
from reference.pictures.visualise import colourise
from reference.progress import track

SUFFIXES: Final = (".jpeg", ".jpg", ".png")
KINDS: Final = ("labelIds", "colour", "overlay")
INTERRUPTED: Final = 130
_OPACITY: Final = 0.5


@dataclass(frozen=True)
class Options:
    """Label every image of a folder; write class ids, colours and overlays.

    Args:
        folder: images, PNG or JPEG, also in folders inside it.
        weights: the card of a trained network, whose weights lie beside it, or a checkpoint of a
            run.
        out: folder for the results; must be new or empty.
        size: height and width at which the network sees the images, pixels; by default those of the
            card, or of the checkpoint's run.
        source: the data set with labels that the network was trained on, which says which classes
            it knows; by default that of the card, or of the checkpoint's run.
        which: of a checkpoint: the trained network, or its moving average.
        scales: times the size; several are averaged.
        flip: average with the mirrored image.
        device: where to compute; "auto" takes a GPU where there is one.
        threads: of torch, on the CPU.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    weights: Path
    out: Path
    size: tuple[int, int] | None = None
    source: Source | None = None
    which: Literal["student", "teacher"] = "student"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 2


def find_images(folder: Path) -> list[Path]:
    """List the images of a folder and of those inside it, in order of their names.

    Raises:
        ValueError: there is no such folder, no image in it, two that would have one result, or one
            that is no image.
    """
    if not folder.is_dir():
        raise ValueError(f"predict: expected a folder of images {folder}, got none.")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"predict: expected PNG or JPEG files in {folder}, got none.")
    results: dict[Path, Path] = {}
    for path in found:
        other = results.setdefault(path.with_suffix(".png"), path)
        if other != path:
            raise ValueError(
                f"predict: expected images whose names differ before the dot, got {other} and "
                f"{path.name}."
            )
        try:
            with Image.open(path) as image:
                image.verify()
        except (OSError, SyntaxError) as error:
            raise _unreadable(path, error) from error
    return found


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"predict: expected a readable image, got {path} ({error}). "
        "Hint: the file is damaged; copy it again, or take it out of the folder."
    )


def _pixels(path: Path) -> ByteArray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise _unreadable(path, error) from error


def pictures(pixels: ByteArray, labels: ByteArray) -> dict[str, ByteArray]:
    """Draw what is written for one image.

    Args:
        pixels: the image.
        labels: train ids.

    Shape:
        pixels (H, W, 3), uint8 RGB; labels (H, W), uint8.

    Returns:
        dict: "labelIds", Cityscapes ids (H, W); "colour" and "overlay", RGB (H, W, 3).
    """
    colour = colourise(labels)
    blend = (1 - _OPACITY) * pixels.astype(np.float32) + _OPACITY * colour.astype(np.float32)
    return {
        "labelIds": TRAIN_TO_CITYSCAPES[labels],
        "colour": colour,
        "overlay": blend.round().astype(np.uint8),
    }


def _png(pixels: ByteArray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def prepare(options: Options) -> tuple[list[Path], Release, Protocol]:
    """Check every input before anything is computed or written.

    Raises:
        ValueError: an input is not what it should be, or the output folder is not empty.
        ImportError: the network needs timm, which cannot be imported.
    """
    hint = "Hint: choose another one with --out."
    require_new_folder("predict", options.out, hint, argument="out")
    if options.threads < 1:
        raise ValueError(f"predict: expected threads of at least 1, got {options.threads}.")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError('predict: expected a GPU for device "cuda", got none.')
    release = read_trained(options.weights, options.which)
    protocol = protocol_for(
        "predict",
        options.weights,
        release.card,
        size=options.size,
        source=options.source,
        scales=options.scales,
        flip=options.flip,
    )
    return find_images(options.folder), release, protocol


def run_predict(
    options: Options,
    images: list[Path],
    release: Release,
    protocol: Protocol,
    *,
    progress: bool = True,
) -> None:
    """Label the images one by one; each file is written whole or not at all.

    Args:
        options: of the command.
        images: of `find_images`.
        release: the network.
        protocol: how it sees the images.
        progress: show a bar.

    Raises:
        ValueError: an image is damaged; the results of those before it stay.
    """
    gpu = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    network = release.network.to("cuda" if gpu else "cpu").eval()
    for index in track(len(images), "Labelling images", show=progress):
        pixels = _pixels(images[index])
        size = (pixels.shape[0], pixels.shape[1])
        labels = class_scores(network, pixels, size, protocol).argmax(dim=0)
        place = images[index].relative_to(options.folder).with_suffix(".png")
        for kind, picture in pictures(pixels, labels.cpu().numpy().astype(np.uint8)).items():
            write_atomically(options.out / kind / place, _png(picture))


def main() -> None:
    """Read the command line, label, print; a wrong input ends with one sentence."""
    options = tyro.cli(Options, prog="python -m reference.predict")
    try:
        images, release, protocol = prepare(options)
        torch.set_num_threads(options.threads)
        run_predict(options, images, release, protocol)
    except (ValueError, ImportError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print(f"Stopped; {options.out} holds the images labelled so far.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print(
        f"Wrote {', '.join(f'{kind}/' for kind in KINDS)} of {len(images)} images to {options.out}"
    )


if __name__ == "__main__":
    main()
