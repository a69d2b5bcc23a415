"""Static labels: by which posterior, and what a loss on them weighs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from reference.data.checking import require_given
from reference.data.classes import IGNORE
from reference.data.files import DataError
from reference.data.sets import Sets
from reference.method import Part, label_counts
from reference.networks.output import Output
from reference.run.files import write_picture
from reference.settings import StaticLabels
from reference.static_labels import COMPLETE, require_complete, write_static_labels
from tests.reference.method_steps import ALONE, drawn, step_of, toy
from tests.reference.tiny_runs import EVERYTHING, SIZE, changed, run

CLASSES = 4
WEIGHT = torch.tensor([1.0, 10.0, 2.0, 4.0])


@pytest.mark.parametrize("unweighted", [False, True])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
def test_an_unweighted_label_is_what_plain_cross_entropy_teaches(tmp_path, unweighted, weight):
    data = EVERYTHING.data
    images = Sets(data, 0).target
    network, random = toy(CLASSES), torch.Generator().manual_seed(0)
    posterior = torch.randn((1, CLASSES, *SIZE), generator=random).softmax(dim=1)
    taught = posterior if weight is None else posterior * weight[:, None, None]

    def see(_: nn.Module, image: Tensor) -> Output:
        return Output(taught.log(), image)

    settings = StaticLabels(class_share=1.0, size=SIZE, unweighted=unweighted)
    coverage = write_static_labels(
        tmp_path, network, images, settings, masked=(), class_weight=weight, see=see, ranks=ALONE
    )
    assert coverage == 1
    with Image.open(tmp_path / f"{images.stems[0]}.png") as file:
        labels = torch.from_numpy(np.asarray(file).astype(np.int64))
    wanted, other = (maps[0].argmax(dim=0) for maps in (posterior, taught))
    assert torch.equal(labels, wanted if unweighted else other)
    assert torch.equal(wanted, other) is (weight is None)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
def test_static_loss_is_one_weighted_mean_over_all_parts(weight: Tensor | None) -> None:
    network = toy(CLASSES)
    parts = [Part(drawn(n, (32, 48), CLASSES), drawn(n + 50, (32, 48), CLASSES)) for n in range(2)]
    parts[0].target.labels[:, 8:] = IGNORE
    weights = WEIGHT, weight
    counts = label_counts(parts, weights, ALONE)
    losses, logits, labels = [], [], []
    for part in parts:
        step = step_of(
            network, 0, source=part.source, target=part.target, counts=counts,
            class_weights=weights,
        )  # fmt: skip
        batch = step.target_batch
        logits.append(step.see(batch.images).logits)
        losses.append(step.static_loss(logits[-1]))
        labels.append(batch.labels)
    whole = network.upsampled(torch.cat(logits), (32, 48))
    wanted = F.cross_entropy(whole, torch.cat(labels), weight=weight, ignore_index=IGNORE)
    torch.testing.assert_close(sum(losses) / 2, wanted)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Labels made elsewhere of every target image: a class by column, the last column none."""
    images = Sets(EVERYTHING.data, 0).target
    for number, stem in enumerate(images.stems):
        labels = np.tile(np.array([number, 1, 2, IGNORE], np.uint8), (2, 1))
        write_picture(tmp_path / "given" / f"{stem}.png", Image.fromarray(labels))
    return tmp_path / "given"


def test_given_labels_take_the_place_of_the_network_s_own(tmp_path: Path, given: Path) -> None:
    images = Sets(EVERYTHING.data, 0).target
    settings = StaticLabels(size=SIZE, given=given)

    def see(*_: Any) -> Output:
        pytest.fail("the network is not asked")

    folder = tmp_path / "labels"
    coverage = write_static_labels(
        folder, toy(CLASSES), images, settings, masked=(), see=see, ranks=ALONE
    )
    assert coverage == 0.75
    for stem in images.stems:
        with Image.open(folder / f"{stem}.png") as file, Image.open(given / f"{stem}.png") as truth:
            assert np.array_equal(np.asarray(file), np.asarray(truth))
    told = json.loads((require_complete(folder) / COMPLETE).read_text())
    assert told == {"coverage": 0.75, "given": str(given)}


def test_given_labels_that_are_none_are_refused(tmp_path: Path, given: Path) -> None:
    images = Sets(EVERYTHING.data, 0).target
    first, *others = (given / f"{stem}.png" for stem in images.stems)
    write_picture(first, Image.fromarray(np.full((2, 4), 77, np.uint8)))
    with pytest.raises(DataError, match=f"expected {first} .*77"):
        write_static_labels(
            tmp_path / "labels", toy(CLASSES), images, StaticLabels(given=given), masked=(),
            see=lambda *_: None, ranks=ALONE,
        )  # fmt: skip
    assert not (tmp_path / "labels" / COMPLETE).exists()
    others[-1].unlink()
    told = f"hold {others[-1].name} and .* got {given} without 1 of {len(images)}"
    with pytest.raises(ValueError, match=told):
        require_given(given, images)


@pytest.mark.parametrize("fault", ["missing", "none"])
def test_a_run_is_refused_before_it_begins_where_a_given_label_is(
    tmp_path: Path, given: Path, fault: str
) -> None:
    first = given / f"{Sets(EVERYTHING.data, 0).target.stems[0]}.png"
    first.unlink()
    told = r"adaptation\.static\.given to hold"
    if fault == "none":
        write_picture(first, Image.fromarray(np.full((2, 4), 77, np.uint8)))
        told = f"expected {first} to hold ids 0"
    settings = changed(EVERYTHING, adaptation={"static": StaticLabels(size=SIZE, given=given)})
    with pytest.raises(ValueError, match=told):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.csv").exists()
