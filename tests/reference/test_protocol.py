"""Scores against matrices worked by hand: full-size labels, masks, means, views, windows."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.data.classes import CITYSCAPES, ClassList
from reference.evaluation.protocol import (
    Evaluation,
    Protocol,
    Scores,
    class_scores,
    confusion_matrix,
    evaluate,
)
from reference.networks.output import Output, Segmenter
from tests.reference.small_networks import refuses, small_deeplab

SYNTHIA = CITYSCAPES.means["miou16"]
TOY = (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15)
OWN = ClassList("mine", ("red", "green", "blue"), ((9, 9, 9),) * 3, {"miou3": (0, 1, 2)})
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SIZE = (8, 16)


class Channels(Segmenter):
    """Class 0 scores red, class 9 green, class 13 blue, all others -9, on cells of 4x4."""

    def __init__(self, *, align_corners: bool = False, count: int = 19) -> None:
        super().__init__(feature_dim=3, num_classes=count, stride=4, align_corners=align_corners)
        self.weight = nn.Parameter(torch.ones(()))
        self.modes: list[bool] = []
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor, domain="target") -> Output:
        self.modes.append(self.training)
        self.sizes.append(tuple(images.shape[2:]))
        cells = F.avg_pool2d(images, 4) * self.weight
        logits = torch.full((len(images), self.num_classes, *cells.shape[2:]), -9.0)
        logits[:, [0, 9, 13] if self.num_classes == 19 else [0, 1, 2]] = cells
        return Output(logits, cells)


class Pictures(list):
    """A set of arrays: images with their labels."""

    name = "pictures"
    samples = ()

    def image(self, index: int) -> np.ndarray:
        return self[index][0]

    def labels(self, index: int) -> np.ndarray:
        return self[index][1]


def stripes(*colours: tuple[int, int, int]) -> np.ndarray:
    """8 rows, 8 columns per colour."""
    row = [colour for colour in colours for _ in range(8)]
    return np.array([row] * 8, dtype=np.uint8)


def all_of(label: int, *size: int) -> np.ndarray:
    return np.full(size or SIZE, label, dtype=np.uint8)


def test_confusion_counts_truth_by_row_and_skips_255():
    truth = torch.tensor([[0, 0, 1], [1, 2, 255]], dtype=torch.uint8)
    guess = torch.tensor([[0, 1, 1], [0, 2, 2]])
    assert confusion_matrix(guess, truth, 3).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert confusion_matrix(guess, torch.full((2, 3), 255), 3).sum() == 0
    with refuses("confusion_matrix: expected labels in 0..2, got [7]."):
        confusion_matrix(torch.zeros(2), torch.tensor([0, 7]), 3)
    with refuses("confusion_matrix: expected predictions in 0..2, got [3]."):
        confusion_matrix(torch.tensor([1, 3]), torch.zeros(2), 3)


def test_iou_worked_by_hand():
    # class 0: 6 right, 2 missed, 1 too many -> 6/9; class 1: 1 right, 1 missed, 2 too many -> 1/4;
    # class 2: never true, never guessed.
    result = Scores(torch.tensor([[6, 2, 0], [1, 1, 0], [0, 0, 0]]))
    assert result.iou_percent[:2] == pytest.approx([100 * 6 / 9, 25.0])
    assert result.iou_percent[2] is None
    assert result.occurring == (0, 1)
    assert result.mean_iou_percent((0, 1, 2)) == pytest.approx((100 * 6 / 9 + 25) / 2)
    assert result.pixel_accuracy_percent == pytest.approx(70.0)


def test_a_class_guessed_but_never_true_counts_as_zero_and_nothing_is_not_zero():
    result = Scores(torch.tensor([[3, 1], [0, 0]]))
    assert result.iou_percent == [75.0, 0.0]
    assert result.mean_iou_percent((0, 1)) == pytest.approx(37.5)
    empty = Scores(torch.zeros(2, 2, dtype=torch.int64))
    assert empty.mean_iou_percent((0, 1)) is None
    assert empty.pixel_accuracy_percent is None


def test_every_labelled_pixel_of_every_image_enters_one_matrix():
    first, second = all_of(0), all_of(13, 16, 32)
    first[0] = 255
    images = Pictures([(stripes(RED, GREEN), first), (stripes(BLUE, RED), second)])
    network = Channels()
    evaluation = evaluate(network, images, Protocol(size=SIZE))
    confusion = evaluation.scores.confusion
    # The first image is scored on 7 rows of 16, the second at twice the size of its image.
    assert confusion[0, [0, 9]].tolist() == [7 * 8, 7 * 8]
    assert confusion[13, [13, 0]].tolist() == [16 * 16, 16 * 16]
    assert confusion.sum() == 7 * 16 + 16 * 32
    # Images are scaled to the evaluation size, labels are not.
    again = evaluate(network, images, Protocol(size=(4, 8)))
    assert network.sizes == [SIZE, SIZE, (4, 8), (4, 8)]
    assert again.scores.confusion.sum() == 7 * 16 + 16 * 32
    assert evaluation.target == "pictures"


def test_corners_of_the_checkpoint_change_the_score():
    image = stripes(GREEN, RED, RED)[:, ::2]
    labels = np.array([[9] * 3 + [0] * 6] * 8, dtype=np.uint8)
    images, protocol = Pictures([(image, labels)]), Protocol(size=(8, 12))
    network = Channels(align_corners=False)
    assert evaluate(network, images, protocol).scores.pixel_accuracy_percent == 100
    network.load_state_dict(Channels(align_corners=True).state_dict())
    again = evaluate(network, images, protocol)
    assert again.scores.pixel_accuracy_percent == pytest.approx(100 * 8 / 9)
    assert "align_corners=True" in again.header


def test_outputs_that_a_source_cannot_know_take_no_pixel():
    images = Pictures([(stripes((90, 255, 0), RED), all_of(0))])
    whole = evaluate(Channels(), images, Protocol(size=SIZE)).scores.confusion
    masked = Protocol(size=SIZE, labelled=SYNTHIA)
    part = evaluate(Channels(), images, masked).scores.confusion
    assert whole[0, [0, 9]].tolist() == [64, 64]
    assert part[0, [0, 9]].tolist() == [128, 0]
    assert masked.masked == (9, 14, 16)
    assert Protocol().masked == ()


def test_an_own_class_list_is_scored_with_its_own_mean():
    images = Pictures([(stripes(RED, GREEN), all_of(1))])
    evaluation = evaluate(Channels(count=3), images, Protocol(classes=OWN, size=SIZE))
    assert evaluation.scores.confusion.tolist() == [[0, 0, 0], [64, 64, 0], [0, 0, 0]]
    # Class 2 has no pixel; class 0 is guessed and never true.
    assert evaluation.means_percent == {"miou3": 25.0}


@pytest.mark.parametrize(("labelled", "means"), [
    (None, {"miou19": (60 / 90 + 20 / 40 + 10 / 20) / 3, "miou16": (60 / 90 + 20 / 40) / 2}),
    # No mean runs over a class that the source does not label.
    (SYNTHIA, {"miou16": (60 / 90 + 20 / 40) / 2}), (TOY, {"miou14": (60 / 90 + 10 / 20) / 2}),
    ((5, 6), {"miou2": None}),
])  # fmt: skip
def test_means_are_named_after_their_classes_and_come_from_one_matrix(labelled, means):
    confusion = torch.zeros(19, 19, dtype=torch.int64)
    confusion[0, 0], confusion[0, 3], confusion[3, 3] = 60, 20, 20
    confusion[9, 9], confusion[9, 0] = 10, 10
    scored = Evaluation(Scores(confusion), Protocol(labelled=labelled), 1, True).means_percent
    if labelled in (None, SYNTHIA):
        means = means | {"miou13": 60 / 90}
    expected = {name: value and 100 * value for name, value in means.items()}
    assert scored == pytest.approx(expected)
    assert list(scored) == list(expected)


def test_the_header_says_how_it_was_measured():
    assert Protocol().describe(500, align_corners=True) == (
        "500 images at 1024x512; single scale; no flip; "
        "logits upsampled to full-size labels (align_corners=True)"
    )
    other = Protocol(CITYSCAPES, (640, 1280), SYNTHIA, "synthia", (0.75, 1.0), True, (512, 640))
    assert other.describe(1, align_corners=False) == (
        "1 images at 1280x640; scales 0.75, 1; with flip; windows of 640x512 every 426x341; "
        "logits upsampled to full-size labels (align_corners=False); "
        "outputs without labels in the source masked: terrain, truck, train"
    )


def test_views_are_averaged_as_probabilities():
    network, image = small_deeplab().eval(), stripes(RED, BLUE, GREEN, RED)
    protocol = Protocol(size=(16, 32), labelled=SYNTHIA, scales=(1.0, 1.5), flip=True)
    scored = class_scores(network, image, (8, 32), protocol)
    views = []
    for size in ((16, 32), (24, 48)):
        single = Protocol(size=size, labelled=SYNTHIA)
        views.append(class_scores(network, image, (8, 32), single))
        views.append(class_scores(network, image[:, ::-1], (8, 32), single).flip(-1))
    expected = torch.stack([view.softmax(dim=0) for view in views]).mean(dim=0)
    torch.testing.assert_close(scored, expected, rtol=0, atol=1e-6)
    assert not scored[[9, 14, 16]].any()


@pytest.mark.parametrize("window", [(16, 32), (20, 32), (400, 400)])
def test_a_window_that_covers_the_image_is_the_image_as_a_whole(window):
    network, image = small_deeplab().eval(), stripes(RED, BLUE, GREEN, RED)
    whole = class_scores(network, image, (8, 32), Protocol(size=(16, 32)))
    slid = class_scores(network, image, (8, 32), Protocol(size=(16, 32), window=window))
    assert torch.equal(whole, slid)


def test_windows_cover_every_pixel_and_are_averaged_where_they_overlap():
    network, image = Channels(), stripes(RED, BLUE, GREEN)
    protocol = Protocol(size=(8, 24), window=(8, 16), stride=(8, 4))
    slid = class_scores(network, image, (8, 24), protocol)
    # The last window ends where the image does.
    assert network.sizes == [(8, 16)] * 3
    total, count = torch.zeros(19, 8, 24), torch.zeros(24)
    for left in (0, 4, 8):
        part = slice(left, left + 16)
        total[:, :, part] += class_scores(network, image[:, part], SIZE, Protocol(size=SIZE))
        count[part] += 1
    torch.testing.assert_close(slid, total / count, rtol=0, atol=1e-5)


def test_the_network_is_left_in_its_mode_also_where_nothing_can_be_scored():
    network = Channels().train()
    evaluate(network, Pictures([(stripes(RED, RED), all_of(0))]), Protocol(size=SIZE))
    sentence = "evaluate: expected pixels labelled with a class that the source labels in the 1 ima"
    for label, labelled in ((255, None), (0, (1, 2))):
        pictures = Pictures([(stripes(RED, RED), all_of(label))])
        with refuses(sentence):
            evaluate(network, pictures, Protocol(size=SIZE, labelled=labelled))
    assert network.modes == [False] * 3 and network.training


@pytest.mark.parametrize(("settings", "sentence"), [
    ({"scales": (float("nan"),)}, "scales above 0 and at most 8, at least one, got (nan,)."),
    ({"scales": ()}, "scales above 0 and at most 8, at least one, got ()."),
    ({"size": (10**5, 9)}, "size times (1.0,) within 1..16384 pixels a side, got (100000, 9)."),
    ({"window": (8, 8), "stride": (9, 8)}, "window and stride of positive sides, the stride w"),
    ({"window": (0, 8)}, "window and stride of positive sides, the stride within, got ((0, 8)"),
    ({"stride": (9, 8)}, "window and stride of positive sides, the stride within, got (None, "),
    ({"labelled": (0, 19)}, "labelled of classes within 0..18, got (0, 19)."),
])  # fmt: skip
def test_settings_that_measure_nothing_are_refused(settings, sentence):
    with refuses(f"Protocol: expected {sentence}"):
        Protocol(**settings)
