"""Pictures: right colours, right pixels, labels where they belong."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from reference.data.classes import IGNORE, PALETTE
from reference.pictures.visualise import (
    LONGEST_SIDE,
    UNLABELLED_COLOUR,
    Panel,
    colourise,
    domain_strips,
    label_map,
    photograph,
    png_uri,
    prediction_strips,
    pseudo_label_strips,
    spread_indices,
)


def pixels_of(panel: Panel) -> np.ndarray:
    prefix = "data:image/png;base64,"
    assert panel.picture.startswith(prefix)
    return np.array(Image.open(io.BytesIO(base64.b64decode(panel.picture[len(prefix) :]))))


def test_every_class_has_its_colour_and_unlabelled_is_none_of_them():
    ids = np.array([[*range(19), IGNORE]], dtype=np.uint8)
    colours = colourise(ids)[0]
    assert np.array_equal(colours[:19], PALETTE)
    assert tuple(colours[19]) == UNLABELLED_COLOUR
    assert len({tuple(colour) for colour in colours.tolist()}) == 20


def test_an_unknown_id_is_refused():
    labels = np.array([[0, 19, 19]], dtype=np.uint8)
    with pytest.raises(ValueError) as caught:
        colourise(labels)
    assert str(caught.value) == ("colourise: expected train ids 0..18 or 255, got 19 in 2 pixels.")


def test_a_picture_survives_the_way_into_the_page():
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    assert np.array_equal(pixels_of(Panel("", png_uri(image))), image)
    assert np.array_equal(pixels_of(photograph("image", image)), image)
    assert np.array_equal(pixels_of(Panel("", png_uri(image[..., 0]))), image[..., 0])


def test_a_large_picture_is_scaled_down():
    image = np.zeros((LONGEST_SIDE, 2 * LONGEST_SIDE, 3), dtype=np.uint8)
    assert pixels_of(photograph("image", image)).shape == (LONGEST_SIDE // 2, LONGEST_SIDE, 3)


def test_a_label_map_is_enlarged_by_whole_squares():
    panel = label_map("static", torch.tensor([[0, 255]]), enlarge=3)
    pixels = pixels_of(panel)
    assert pixels.shape == (3, 6, 3)
    assert (pixels[:, :3] == PALETTE[0]).all()
    assert (pixels[:, 3:] == UNLABELLED_COLOUR).all()
    assert panel.pixelated


@pytest.mark.parametrize(
    ("count", "wanted", "indices"), [(100, 4, [12, 37, 62, 87]), (2, 4, [0, 1]), (0, 4, [])]
)
def test_indices_are_spread_evenly(count, wanted, indices):
    assert spread_indices(count, wanted) == indices


def test_domain_strips_show_training_images_as_stored(tiny_scenario):
    source, target = domain_strips(tiny_scenario, count=2)
    assert (source.stem, target.stem) == ("source", "target")
    for strip, images in (
        (source, tiny_scenario.source.images),
        (target, tiny_scenario.target_images),
    ):
        assert [panel.caption for panel in strip.panels] == ["training image 1", "training image 4"]
        assert np.array_equal(pixels_of(strip.panels[1]), images[4].permute(1, 2, 0).numpy())


def test_prediction_strips_show_image_truth_and_every_network(tiny_scenario, tiny_rows):
    networks = {name: tiny_rows[name].trained.network for name in ("source_only", "bicl")}
    strips = prediction_strips(tiny_scenario, networks, count=2)
    assert [strip.stem for strip in strips] == [tiny_scenario.test.stems[i] for i in (1, 3)]
    captions = [panel.caption for panel in strips[0].panels]
    assert captions == ["image", "ground truth", "source_only", "bicl"]
    image, truth = (pixels_of(panel) for panel in strips[0].panels[:2])
    assert np.array_equal(image, tiny_scenario.test_reader.image(1))
    assert np.array_equal(truth, PALETTE[tiny_scenario.test_reader.labels(1)])


def test_hybrid_labels_are_static_where_those_exist_and_dynamic_elsewhere(tiny_scenario, tiny_rows):
    trained = tiny_rows["bicl"].trained
    before = {name: value.clone() for name, value in trained.bicl.state_dict().items()}
    for strip in pseudo_label_strips(tiny_scenario, trained, count=3):
        found = {panel.caption: pixels_of(panel) for panel in strip.panels}
        assert list(found) == ["image", "static", "dynamic", "hybrid", "ground truth, not used"]
        fixed = (found["static"] != UNLABELLED_COLOUR).any(axis=-1)
        assert fixed.any()
        assert np.array_equal(found["hybrid"][fixed], found["static"][fixed])
        assert np.array_equal(found["hybrid"][~fixed], found["dynamic"][~fixed])
    after = trained.bicl.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_without_contrast_has_no_pseudo_labels_to_show(tiny_scenario, tiny_rows):
    with pytest.raises(ValueError) as caught:
        pseudo_label_strips(tiny_scenario, tiny_rows["entropy_only"].trained)
    assert str(caught.value) == (
        "pseudo_label_strips: expected a run with contrast, got one whose bicl is None."
    )
