"""Static labels as files: the promised shares, whole folders, two processes as one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference.engine.optimisation import Precision
from reference.engine.processes import Processes
from reference.engine.pseudo_label_files import (
    COMPLETE,
    class_thresholds,
    keep,
    log_odds,
    require_complete,
    write_static_labels,
)
from reference.engine.settings import Machine
from reference.engine.stage_settings import StaticLabels
from torch import Tensor

from reference.networks.output import Output, Segmenter
from tests.reference.tiny_runs import ALONE

SETTINGS = StaticLabels(class_share=0.25, image_share=0.0, size=(8, 8))


class Reader:
    """Two images: class 3 in the left half, class 5 in the right, surer from top to bottom."""

    stems = ("a", "b")

    def __len__(self) -> int:
        return 2

    def image(self, index: int) -> np.ndarray:
        pixels = np.zeros((8, 8, 3), dtype=np.uint8)
        pixels[:, :4, 0], pixels[:, 4:, 0] = 3, 5
        pixels[..., 1] = (16 * np.arange(8) + 8 * index)[:, None]
        return pixels


class ByColour(Segmenter):
    """Class = the first colour; confidence grows with the second."""

    def __init__(self, loudness: float = 1.0) -> None:
        super().__init__(feature_dim=3, num_classes=19, stride=1, align_corners=False)
        self.loudness = loudness

    def forward(self, images: Tensor, domain: str = "target") -> Output:
        colours = (images * 255).round()
        logits = torch.zeros(len(images), 19, *images.shape[-2:])
        logits.scatter_(1, colours[:, :1].long(), 4 + colours[:, 1:2] / 16)
        return Output(self.loudness * logits, images)


def write(
    folder: Path,
    settings: StaticLabels = SETTINGS,
    masked: tuple[int, ...] = (),
    loudness: float = 1.0,
):
    return write_static_labels(
        folder,
        ByColour(loudness).train(),
        Reader(),
        settings,
        masked=masked,
        precision=Precision(Machine(device="cpu"), ALONE),
        processes=ALONE,
    )


def labels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / f"{stem}.png")) for stem in Reader.stems])


def test_the_most_confident_share_of_each_class_over_all_images_is_kept(tmp_path: Path):
    found = write(tmp_path)
    kept = labels(tmp_path)
    assert kept.dtype == np.uint8
    assert found.coverage == pytest.approx(0.25)
    assert (kept[:, 6:, :4] == 3).all() and (kept[:, 6:, 4:] == 5).all()
    assert (kept[:, :6] == 255).all()
    assert found.predicted_share[3] == found.predicted_share[5] == 0.5
    assert found.thresholds[3] is not None and found.thresholds[0] is None


@pytest.mark.parametrize("loudness", [0.01, 20.0, 1e6])
def test_the_share_is_kept_however_sure_the_network_is(loudness: float, tmp_path: Path):
    """Before its warm-up a network is surer by millions than a trained one ever is."""
    found = write(tmp_path, loudness=loudness)
    assert found.coverage == pytest.approx(0.25)
    odds = log_odds(loudness * torch.tensor([4.0 + 96 / 16] + 18 * [0.0]).view(19, 1, 1))[1]
    # The least sure pixels that are kept lie in the bin that begins at the threshold.
    assert found.thresholds[3] == pytest.approx(odds.item(), rel=0.002, abs=0.002)
    assert found.thresholds[3] <= odds.item()


def test_pixels_that_tie_are_kept_together(tmp_path: Path):
    assert write(tmp_path, loudness=0.0).coverage == 1.0


def test_a_masked_class_never_wins(tmp_path: Path):
    found = write(tmp_path, masked=(3,))
    assert found.predicted_share[3] == 0
    assert not (labels(tmp_path) == 3).any()


def test_the_share_of_an_image_counts_whatever_the_class(tmp_path: Path):
    settings = replace(SETTINGS, class_share=0.0, image_share=0.25)
    write(tmp_path, settings)
    kept = labels(tmp_path)
    assert ((kept != 255).sum(axis=(1, 2)) == 16).all()
    assert (kept[:, 6:] != 255).all()


def test_a_confidence_above_what_a_probability_can_show_still_orders():
    logits = torch.tensor([[30.0, 31.0], [0.0, 0.0]]).view(2, 1, 2)
    assert logits.softmax(0).max(0).values.tolist() == [[1.0, 1.0]]
    best, odds = log_odds(logits)
    assert best.tolist() == [[0, 0]]
    assert odds.tolist() == [[30.0, 31.0]]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, [4, 4, 4]), (0.5, [3, 1, 4]), (1.0, [0, 0, 4])]
)
def test_thresholds_keep_at_least_the_share(share: float, expected: list[int]):
    counts = torch.tensor([[2, 1, 0, 3], [4, 2, 3, 0], [0, 0, 0, 0]])
    assert class_thresholds(counts, share).tolist() == expected


def test_ties_at_the_edge_of_an_images_share_are_dropped():
    odds = torch.tensor([[1.0, 2.0, 2.0, 3.0]])
    nothing = torch.full((19,), 2**31)
    best = torch.zeros(1, 4, dtype=torch.int64)
    assert keep(best, odds, nothing, 0.5).tolist() == [[255, 255, 255, 0]]
    assert keep(best, odds, nothing, 0.75).tolist() == [[255, 0, 0, 0]]


def test_two_processes_write_each_their_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "one")
    monkeypatch.setattr(Processes, "wait", lambda self: None)
    # The second process brings the counts of the first image, which the first one cannot see.
    monkeypatch.setattr(Processes, "total", lambda self, values: values)
    write_static_labels(
        tmp_path / "two",
        ByColour(),
        Reader(),
        SETTINGS,
        masked=(),
        precision=Precision(Machine(device="cpu"), ALONE),
        processes=Processes(1, 2, torch.device("cpu")),
    )
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["b.png"]


def test_the_network_keeps_its_mode(tmp_path: Path):
    network = ByColour().train()
    arguments = {"masked": (), "precision": Precision(Machine(device="cpu"), ALONE)}
    write_static_labels(tmp_path, network, Reader(), SETTINGS, processes=ALONE, **arguments)
    assert network.training


def test_a_folder_that_was_not_finished_is_refused(tmp_path: Path):
    write(tmp_path)
    assert require_complete(tmp_path) == tmp_path
    assert json.loads((tmp_path / COMPLETE).read_text())["coverage"] == 0.25
    (tmp_path / COMPLETE).unlink()
    sentence = (
        f"train: expected the static labels that the checkpoint was trained with in {tmp_path}, "
        "got none or a part. Hint: restore the folder, or remove the checkpoints of this round "
        "so that it begins anew."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        require_complete(tmp_path)
