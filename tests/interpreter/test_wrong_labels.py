"""A label that is no class turns its own loss into NaN in kernels, where no host looks at labels.

On a GPU labels are compared and never looked up; on a CPU the operators refuse them first, so the
kernels are called as they are.
"""

import pytest
import torch

from protocontrast.calls import ContrastCall, DistributionCall, TargetPassCall, UpsampledCall
from tests.test_target_pass import plain_call

LABELS = torch.tensor([[0, 3, -1, 2**33, 255]])
WRONG = [[False, True, True, True, False]]


@pytest.mark.parametrize("name", ["contrast", "distribution"])
def test_of_pixels(name: str) -> None:
    from protocontrast.kernels.contrast import contrast
    from protocontrast.kernels.distribution_contrast import distribution_contrast

    features, rows, nothing = torch.ones(1, 4, 5), torch.eye(4)[:3], (None, None, None)
    if name == "contrast":
        call = ContrastCall(features, LABELS, rows, *nothing, "cosine", 0.1, False, 255)
        loss, weight, _ = contrast(call)
    else:
        raised = DistributionCall(features, LABELS, rows, rows, *nothing, True, 1.0, 255)
        loss, weight, _ = distribution_contrast(raised)
    assert torch.isnan(loss).tolist() == WRONG
    assert torch.isnan(weight).tolist() == WRONG
    assert loss[0, 4] == 0


def test_of_upsampled_logits() -> None:
    from protocontrast.kernels.upsampled_cross_entropy import upsampled_cross_entropy

    call = UpsampledCall(torch.zeros(1, 3, 1, 5), LABELS[None], None, 255, False, 0.0)
    loss, mass = upsampled_cross_entropy(call)
    assert loss.isnan().tolist() == [WRONG]
    assert loss[0, 0, 4] == 0
    assert mass.isnan()


@pytest.mark.parametrize("wrong", [77, -1, 2**33])
def test_of_the_target_pass(wrong: int) -> None:
    from protocontrast.kernels.target_pass import target_pass

    call = plain_call()
    features, static, rows = call["features"], call["static"].clone(), call["prototypes"]
    everywhere = call["present"]
    settings = 0.5, "confidence", 0.1, False, False, 255, True, True
    static[1, 4] = wrong
    losses, sums, counts, labels, *_ = target_pass(
        TargetPassCall(features, static, None, None, rows, None, everywhere, everywhere, *settings)
    )
    assert torch.isnan(losses).all()
    assert torch.isfinite(sums).all()
    assert counts.sum() == (labels != 255).sum() - 1
