"""Rows of other methods to stand below a run: IoU per class on the Cityscapes val images.

Only rows that were read in a repository or its issue threads are here, each with its place. None
was measured with this code, and what they were measured with differs: some average over scales,
some are the best of many checkpoints.
"""

from typing import Final, NamedTuple

from reference.data.classes import CITYSCAPES
from reference.data.layouts import LAYOUTS
from reference.evaluation.protocol import Evaluation


class Published(NamedTuple):
    """One row of a published table; DeepLab-V2 with ResNet-101 unless the note says more.

    `iou_percent` is of the classes that the source labels, in train-id order, and `miou` the
    published mean over them; `repository` shows it, as owner/name.
    """

    name: str
    repository: str
    note: str
    iou_percent: tuple[float, ...]
    miou: float

    @property
    def by_class(self) -> dict[int, float]:
        """Class number -> IoU."""
        classes = CITYSCAPES.means[f"miou{len(self.iou_percent)}"]
        return dict(zip(classes, self.iou_percent, strict=True))


ROWS: Final = {
    "gta5": (
        Published("source only", "wasidennis/AdaptSegNet", "", (
            75.8, 16.8, 77.2, 12.5, 21.0, 25.5, 30.1, 20.1, 81.3, 24.6, 70.3, 53.8, 26.4, 49.9,
            17.2, 25.9, 6.5, 25.3, 36.0), 36.6),
        Published("AdaptSegNet", "wasidennis/AdaptSegNet", "", (
            86.5, 36.0, 79.9, 23.4, 23.3, 23.9, 35.2, 14.8, 83.4, 33.3, 75.6, 58.5, 27.6, 73.7,
            32.5, 35.4, 3.9, 30.1, 28.1), 42.4),
        Published("AdvEnt", "valeoai/ADVENT", "best checkpoint", (
            89.9, 36.5, 81.6, 29.2, 25.2, 28.5, 32.3, 22.4, 83.9, 34.0, 77.1, 57.4, 27.9, 83.7,
            29.4, 39.1, 1.5, 28.4, 23.3), 43.8),
        Published("IntraDA", "feipan664/IntraDA", "", (
            90.6, 36.1, 82.6, 29.5, 21.3, 27.6, 31.4, 23.1, 85.2, 39.3, 80.2, 59.3, 29.4, 86.4,
            33.6, 53.9, 0.0, 32.7, 37.6), 46.3),
        Published("DACS", "vikolss/DACS", "a user's run, issue 12", (
            92.9, 52.6, 85.8, 27.8, 31.8, 35.7, 41.2, 40.1, 86.5, 45.0, 86.3, 62.4, 25.0, 88.2,
            49.8, 54.9, 0.0, 35.9, 49.6), 52.2),
        Published("ProCA", "jiangzhengkai/ProCA", "multi-scale", (
            91.9, 48.4, 87.3, 41.5, 31.8, 41.9, 47.9, 36.7, 86.5, 42.3, 84.7, 68.4, 43.1, 88.1,
            39.6, 48.8, 40.6, 43.6, 56.9), 56.3),
        Published("CPSL, stage 1", "lslrh/CPSL", "head dlv2_gn, best of its log", (
            91.7, 52.9, 83.6, 43.0, 32.3, 43.7, 51.3, 42.8, 85.4, 37.6, 81.1, 69.5, 30.0, 88.1,
            44.1, 59.9, 24.9, 47.2, 48.4), 55.7),
        Published("CPSL, stage 3", "lslrh/CPSL", "head dlv2_gn, best of its log", (
            92.8, 57.7, 85.4, 45.7, 36.7, 48.9, 59.5, 54.5, 88.7, 48.5, 84.9, 73.2, 36.8, 89.2,
            49.9, 67.8, 29.2, 49.9, 55.6), 60.8),
    ),
    "synthia": (
        Published("ProCA", "jiangzhengkai/ProCA", "multi-scale", (
            90.5, 52.1, 84.6, 29.2, 3.3, 40.3, 37.4, 27.3, 86.4, 85.9, 69.8, 28.7, 88.7, 53.7,
            14.8, 54.8), 53.0),
    ),
}  # fmt: skip


def published_rows(evaluation: Evaluation) -> tuple[Published, ...]:
    """Return the rows that an evaluation may be compared with.

    They hold for GTA5 or SYNTHIA as the source and for all val images and classes of Cityscapes.
    """
    protocol = evaluation.protocol
    rows = ROWS.get(protocol.source, ())
    alike = (
        evaluation.target == LAYOUTS["cityscapes"].title
        and evaluation.images in LAYOUTS["cityscapes"].counts["val"]
        and protocol.classes.names == CITYSCAPES.names
        and all(tuple(row.by_class) == protocol.known for row in rows)
    )
    return rows if alike else ()
