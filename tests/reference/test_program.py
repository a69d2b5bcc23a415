"""The exported program: same bits, any batch, nothing left behind where it cannot be made."""

from __future__ import annotations

import re

import pytest
import torch

from reference.networks.program import write_program
from reference.networks.toy import build_network
from tests.reference.small_networks import small_deeplab


@pytest.mark.parametrize(
    "make", [lambda: build_network(seed=0), small_deeplab], ids=["toy", "deeplab"]
)
def test_the_program_computes_the_same_at_any_batch_size(tmp_path, make):
    network = make().train()
    write_program(tmp_path / "model.pt2", network, (16, 24))
    assert network.training
    program = torch.export.load(tmp_path / "model.pt2").module()
    network.eval()
    for batch in (1, 2, 5):
        images = torch.rand(batch, 3, 16, 24, generator=torch.Generator().manual_seed(batch))
        logits, features = program(images)
        expected = network(images)
        assert torch.equal(logits, expected.logits)
        assert torch.equal(features, expected.features)


def test_a_size_that_the_network_refuses_writes_nothing(tmp_path):
    sentence = (
        r"SegmentationNetwork: expected images of shape \(B, 3, H, W\) with H and W multiples of "
        r"8, got \(\w+, 3, 20, 16\)\. Hint: choose the size with which the data are loaded\."
    )
    with pytest.raises(ValueError) as caught:
        write_program(tmp_path / "model.pt2", build_network(seed=0), (20, 16))
    assert re.fullmatch(sentence, str(caught.value))
    assert list(tmp_path.iterdir()) == []
