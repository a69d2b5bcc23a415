"""The network: shapes, size, seeding, and no traffic between the images of a batch."""

from __future__ import annotations

import re

import pytest
import torch

from reference.networks.toy import build_network


def test_logits_and_features_come_at_stride_4():
    logits, features = build_network(seed=0)(torch.rand(2, 3, 24, 40))
    assert logits.shape == (2, 19, 6, 10)
    assert features.shape == (2, 64, 6, 10)


def test_it_has_about_three_hundred_thousand_parameters():
    count = sum(parameter.numel() for parameter in build_network(seed=0).parameters())
    assert 250_000 < count < 350_000


def test_weights_depend_on_the_seed_and_leave_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (build_network(seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.rand(1) == expected
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fuse.weight"], other["fuse.weight"])


def test_an_image_is_seen_the_same_alone_and_in_company():
    network = build_network(seed=0).train()
    images = torch.rand(2, 3, 16, 16)
    together = network(images).logits[:1]
    alone = network(images[:1]).logits
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_features_are_signed_and_the_head_reads_them():
    network = build_network(seed=0)
    logits, features = network(torch.rand(1, 3, 16, 16))
    assert features.min() < 0 < features.max()
    torch.testing.assert_close(network.head(features), logits)


def test_the_colour_normalisation_is_saved_with_the_weights():
    saved = build_network(seed=0).state_dict()
    assert saved["mean"].flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert saved["std"].flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


@pytest.mark.parametrize("shape", [(1, 3, 20, 16), (1, 3, 16, 20), (3, 16, 16)])
def test_other_sizes_are_refused(shape):
    sentence = (
        "SegmentationNetwork: expected images of shape (B, 3, H, W) with H and W multiples of 8, "
        f"got {shape}. Hint: choose the size with which the data are loaded."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        build_network(seed=0)(torch.zeros(shape))
