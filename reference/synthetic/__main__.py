"""Draw both domains of the toy: ``python -m reference.synthetic runs/data/toy-192x96-seed0``.

Training runs start this by themselves where their scenes are missing. A run that was stopped is
completed by the next one.
"""

import fcntl
import hashlib
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from reference.commands import answer, read
from reference.data.classes import CITYSCAPES
from reference.data.layouts import CITYSCAPES_NUMBERS
from reference.data.settings import Drawn
from reference.run.files import remove_partials, write_json, write_picture
from reference.run.report import track
from reference.synthetic.draw import MANIFEST, Scene, is_claimed, scenes, settings_of
from reference.synthetic.look import DOMAINS
from reference.synthetic.scene import draw_scene


@dataclass(frozen=True)
class Options:
    """Draw street scenes of a source and a target domain, in the layouts of GTA5 and Cityscapes."""

    # a new or empty folder, or one to complete
    root: tyro.conf.Positional[Path]
    # number of the data set
    seed: int = 0
    # processes side by side; 0: as many as there are cores, at most 8
    jobs: int = 0
    drawn: Annotated[Drawn, tyro.conf.arg(name="")] = field(default_factory=Drawn)


def draw(root: Path, seed: int, drawn: Drawn, *, jobs: int = 1) -> None:
    """Draw the scenes that a folder lacks, new or filled with the same settings before.

    Where it holds other things, or scenes of other settings or code, nothing is touched.
    """
    wanted = {**settings_of(drawn, seed), "drawing": _fingerprint(seed, drawn)}
    if not is_claimed(root, wanted):
        write_json(root / MANIFEST, wanted)
    with (root / MANIFEST).open() as manifest:
        # Two runs that lack the same scenes draw them once.
        fcntl.flock(manifest, fcntl.LOCK_EX)
        remove_partials(root)
        missing = [scene for scene in scenes(root, drawn) if scene.missing]
        with multiprocessing.Pool(max(1, min(jobs, len(missing)))) as pool:
            done = pool.imap_unordered(partial(_draw, seed, drawn), missing, chunksize=4)
            for _ in track(len(missing), "Drawing street scenes", show=bool(missing)):
                next(done)


def _draw(seed: int, drawn: Drawn, scene: Scene) -> None:
    partner = scene.labels is None
    image, classes = draw_scene(
        seed, scene.domain, scene.index, drawn.size, drawn.shift, scene.split,
        night=drawn.night and not partner, other_traffic=partner,
    )  # fmt: skip
    write_picture(scene.image, Image.fromarray(image), compress_level=1)
    if scene.labels is None:
        return
    ids = np.array(CITYSCAPES_NUMBERS, dtype=np.uint8)
    labels = Image.fromarray(ids[classes])
    if scene.domain == "source":
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[ids] = CITYSCAPES.colours
        labels.putpalette(palette.ravel().tolist())
    write_picture(scene.labels, labels, compress_level=1)


def _fingerprint(seed: int, drawn: Drawn) -> str:
    digest = hashlib.sha256()
    for domain in DOMAINS:
        for pixels in draw_scene(seed, domain, 0, drawn.size, drawn.shift, night=drawn.night):
            digest.update(pixels.tobytes())
    return digest.hexdigest()[:16]


def main(arguments: Sequence[str] | None = None) -> None:
    options = read(Options, "synthetic", arguments)
    jobs = options.jobs or min(os.cpu_count() or 1, 8)
    stopped = "Stopped; the same command goes on."
    answer(lambda: draw(options.root, options.seed, options.drawn, jobs=jobs), stopped)


if __name__ == "__main__":
    main()
