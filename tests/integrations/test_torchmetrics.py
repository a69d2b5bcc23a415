"""The metrics of docs/extending.md on steps of BiCL."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torchmetrics")

import protocontrast as pc
from tests.extending_blocks import run

CLASSES, DIM = 19, 8


def test_coverage_and_accuracy_are_those_counted_by_hand() -> None:
    names = run("TorchMetrics")
    torch.manual_seed(0)
    bicl, directions = pc.BiCL(CLASSES, DIM, threshold=0.6), torch.randn(CLASSES, DIM)
    covered, right = [], []
    for _ in range(3):
        labels, truth = torch.randint(CLASSES, (2, 2, 6, 7))
        source, target = (
            directions[known].movedim(-1, 1) + 0.6 * torch.randn(2, DIM, 6, 7)
            for known in (labels, truth)
        )
        truth[0, 0] = 255
        out = bicl(source, labels, target)
        names["watch"](out, truth)
        covered.append(out.target_labels != 255)
        right.append((out.target_labels == truth)[covered[-1] & (truth != 255)])
    share = torch.stack(covered).float().mean()
    assert 0.1 < share < 0.9
    torch.testing.assert_close(names["coverage"].compute(), share)
    found = names["accuracy"].compute()
    assert 0.1 < found < 1
    torch.testing.assert_close(found, torch.cat(right).float().mean())


def test_unmasked_a_pixel_without_a_label_counts_as_wrong() -> None:
    accuracy = run("TorchMetrics")["accuracy"]
    accuracy.update(torch.tensor([[0, 255]]), torch.tensor([[0, 1]]))
    assert accuracy.compute() == 0.5
