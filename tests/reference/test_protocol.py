"""The protocol against matrices worked by hand: full-size labels, masks, means by name, views."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.data.classes import NUM_CLASSES
from reference.evaluation.evaluate import Scores
from reference.evaluation.protocol import Protocol, class_scores, evaluate_reader
from reference.networks.output import Output, Segmenter
from tests.reference.small_networks import small_deeplab


class Channels(Segmenter):
    """Class 0 scores red, class 9 green, class 13 blue, all others -9, on cells of 4x4."""

    def __init__(self, *, align_corners: bool = False) -> None:
        super().__init__(
            feature_dim=3, num_classes=NUM_CLASSES, stride=4, align_corners=align_corners
        )
        self.weight = nn.Parameter(torch.ones(()))
        self.modes: list[bool] = []
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Output:
        self.modes.append(self.training)
        self.sizes.append(tuple(images.shape[2:]))
        cells = F.avg_pool2d(images, 4) * self.weight
        logits = torch.full((len(images), NUM_CLASSES, *cells.shape[2:]), -9.0)
        logits[:, [0, 9, 13]] = cells
        return Output(logits, cells)


class Pictures:
    """A reader of arrays."""

    def __init__(self, images: list[np.ndarray], labels: list[np.ndarray] | None) -> None:
        self._images, self._labels = images, labels
        self.has_labels = labels is not None
        self.stems = tuple(map(str, range(len(images))))

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> np.ndarray:
        return self._images[index]

    def labels(self, index: int) -> np.ndarray:
        return self._labels[index]


def stripes(*colours: tuple[int, int, int]) -> np.ndarray:
    """8 rows, 8 columns per colour."""
    row = [colour for colour in colours for _ in range(8)]
    return np.array([row] * 8, dtype=np.uint8)


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SIZE = (8, 16)


def test_every_labelled_pixel_of_every_image_enters_one_matrix():
    first = np.full((8, 16), 0, dtype=np.uint8)
    first[0] = 255
    second = np.full((16, 32), 13, dtype=np.uint8)
    reader = Pictures([stripes(RED, GREEN), stripes(BLUE, RED)], [first, second])
    confusion = evaluate_reader(Channels(), reader, Protocol(SIZE)).scores.confusion
    # The first image is scored on 7 rows of 16, the second at twice the size of its image.
    assert confusion[0, [0, 9]].tolist() == [7 * 8, 7 * 8]
    assert confusion[13, [13, 0]].tolist() == [16 * 16, 16 * 16]
    assert confusion.sum() == 7 * 16 + 16 * 32


def test_images_are_scaled_to_the_evaluation_size_and_labels_are_not():
    network = Channels()
    labels = np.zeros((24, 48), dtype=np.uint8)
    evaluation = evaluate_reader(network, Pictures([stripes(RED, RED)], [labels]), Protocol((4, 8)))
    assert network.sizes == [(4, 8)]
    assert evaluation.scores.confusion[0, 0] == 24 * 48


def test_corners_of_the_checkpoint_change_the_score():
    image = stripes(GREEN, RED, RED)[:, ::2]
    labels = np.array([[9] * 3 + [0] * 6] * 8, dtype=np.uint8)
    reader, protocol = Pictures([image], [labels]), Protocol((8, 12))
    network = Channels(align_corners=False)
    assert evaluate_reader(network, reader, protocol).scores.pixel_accuracy_percent == 100
    network.load_state_dict(Channels(align_corners=True).state_dict())
    found = evaluate_reader(network, reader, protocol)
    assert found.scores.pixel_accuracy_percent == pytest.approx(100 * 8 / 9)
    assert "align_corners=True" in found.header


def test_outputs_that_a_synthia_source_cannot_know_take_no_pixel():
    labels = np.zeros((8, 16), dtype=np.uint8)
    reader = Pictures([stripes((90, 255, 0), RED)], [labels])
    gta5 = evaluate_reader(Channels(), reader, Protocol(SIZE)).scores.confusion
    synthia = evaluate_reader(Channels(), reader, Protocol(SIZE, "synthia")).scores.confusion
    assert gta5[0, [0, 9]].tolist() == [64, 64]
    assert synthia[0, [0, 9]].tolist() == [128, 0]
    assert Protocol(source="synthia").masked == (9, 14, 16)
    assert Protocol(source="gta5").masked == ()
    assert Protocol(source="toy").masked == (3, 12, 16, 17, 18)


def worked() -> Scores:
    """Class 0: 60 right, 20 taken for 3. Class 3: 20 right. Class 9: 10 right, 10 taken for 0.

    IoU: class 0 60/(80+10), class 3 20/(20+20), class 9 10/20; all other classes occur nowhere.
    """
    confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    confusion[0, 0], confusion[0, 3], confusion[3, 3] = 60, 20, 20
    confusion[9, 9], confusion[9, 0] = 10, 10
    return Scores(confusion)


def test_means_are_named_after_their_classes_and_come_from_one_matrix():
    assert Protocol().means_percent(worked()) == pytest.approx(
        {
            "miou19": 100 * (60 / 90 + 20 / 40 + 10 / 20) / 3,
            "miou16": 100 * (60 / 90 + 20 / 40) / 2,
            "miou13": 100 * (60 / 90),
        }
    )


def test_a_synthia_source_has_no_mean_over_19():
    means = Protocol(source="synthia").means_percent(worked())
    assert list(means) == ["miou16", "miou13"]
    assert means["miou16"] == pytest.approx(100 * (60 / 90 + 20 / 40) / 2)
    assert list(Protocol(source="toy").means_percent(worked())) == ["miou14"]


def test_the_header_says_how_it_was_measured():
    assert Protocol().describe(500, align_corners=True) == (
        "500 images at 1024x512; single scale; no flip; "
        "logits upsampled to full-size labels (align_corners=True)"
    )
    other = Protocol((640, 1280), "synthia", (0.75, 1.0), True)
    assert other.describe(1, align_corners=False) == (
        "1 images at 1280x640; scales 0.75, 1; with flip; "
        "logits upsampled to full-size labels (align_corners=False); "
        "outputs without labels in the source masked: terrain, truck, train"
    )


def test_views_are_averaged_as_probabilities():
    network, image = small_deeplab().eval(), stripes(RED, BLUE, GREEN, RED)
    protocol = Protocol((16, 32), "synthia", (1.0, 1.5), True)
    found = class_scores(network, image, (8, 32), protocol)
    views = []
    for size in ((16, 32), (24, 48)):
        single = Protocol(size, "synthia")
        views.append(class_scores(network, image, (8, 32), single))
        views.append(class_scores(network, image[:, ::-1], (8, 32), single).flip(-1))
    expected = torch.stack([view.softmax(dim=0) for view in views]).mean(dim=0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert not found[[9, 14, 16]].any()


def test_the_network_is_evaluated_as_such_and_left_in_its_mode():
    network = Channels().train()
    reader = Pictures([stripes(RED, RED)], [np.zeros(SIZE, dtype=np.uint8)])
    evaluate_reader(network, reader, Protocol(SIZE))
    assert network.modes == [False]
    assert network.training
    broken = Pictures([stripes(RED, RED)], [np.full(SIZE, 40, dtype=np.uint8)])
    with pytest.raises(ValueError, match=r"^confusion_matrix: expected labels in 0\.\.18"):
        evaluate_reader(network, broken, Protocol(SIZE))
    assert network.training


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Protocol(source="gta"),
            'Protocol: expected source "gta5", "synthia", "toy", got \'gta\'.',
        ),
        (
            lambda: Protocol(scales=(0.0,)),
            "Protocol: expected a positive size and at least one scale above 0, got size "
            "(512, 1024) and scales (0.0,).",
        ),
        (
            lambda: evaluate_reader(Channels(), Pictures([], []), Protocol()),
            "evaluate_reader: expected a reader with labels and at least one image, got "
            "0 images with labels.",
        ),
        (
            lambda: evaluate_reader(Channels(), Pictures([stripes(RED)], None), Protocol()),
            "evaluate_reader: expected a reader with labels and at least one image, got "
            "1 images without labels.",
        ),
        (
            lambda: evaluate_reader(
                small_deeplab(num_classes=16),
                Pictures([stripes(RED)], [np.zeros((8, 8), dtype=np.uint8)]),
                Protocol(),
            ),
            "evaluate_reader: expected a network with 19 outputs, got 16. Hint: train on all 19; "
            "the protocol masks those without labels.",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(make, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        make()
