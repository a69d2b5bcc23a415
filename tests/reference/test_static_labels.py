"""Static labels: by which posterior, and what a loss on them weighs."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from reference.data.classes import IGNORE
from reference.data.sets import Sets
from reference.method import Part, label_counts
from reference.networks.output import Output
from reference.settings import StaticLabels
from reference.static_labels import write_static_labels
from tests.reference.method_steps import ALONE, drawn, step_of, toy
from tests.reference.tiny_runs import EVERYTHING, SIZE

CLASSES = 4
WEIGHT = torch.tensor([1.0, 10.0, 2.0, 4.0])


@pytest.mark.parametrize("unweighted", [False, True])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
def test_an_unweighted_label_is_what_plain_cross_entropy_would_have_taught(
    tmp_path: Path, unweighted: bool, weight: Tensor | None
) -> None:
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
    first = parts[0].target
    assert first is not None
    assert first.labels is not None
    first.labels[:, 8:] = IGNORE
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
