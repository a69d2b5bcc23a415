"""Loss terms: parts add up to the whole, and every switch leaves its term out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from reference.engine.optimisation import Precision
from reference.engine.stage_settings import AdaptationStage
from reference.engine.terms import BothDomains, Part, part_losses, shares
from reference.training.losses import cross_entropy

from reference.networks.output import Output, Segmenter
from reference.networks.toy import build_network
from tests.reference.tiny_runs import ALONE
from tests.reference.two_ranks import CPU, STAGE, gradients, part

CROSS_ENTROPIES = replace(
    STAGE,
    source_entropy_weight=0.0,
    entropy_weight=0.0,
    contrast=replace(STAGE.contrast, target_to_source=0.0, source_to_target=0.0),
)


def test_parts_equal_one_batch():
    whole, _, terms = gradients([part(slice(0, 4))], ALONE, CROSS_ENTROPIES)
    pieces = [part(slice(0, 1)), part(slice(1, 3)), part(slice(3, 4))]
    cut, _, sums = gradients(pieces, ALONE, CROSS_ENTROPIES)
    assert set(terms) == {"source_cross_entropy", "static_cross_entropy"}
    assert sums == pytest.approx(terms, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("off", "gone"),
    [
        ({"static_weight": 0.0}, {"static_cross_entropy"}),
        ({"source_entropy_weight": 0.0}, {"source_entropy"}),
        ({"entropy_weight": 0.0}, {"entropy"}),
        ({"entropy_from_round": 1}, {"source_entropy", "entropy"}),
        ({"contrast": replace(STAGE.contrast, target_to_source=0.0)}, {"target_to_source"}),
        ({"contrast": replace(STAGE.contrast, source_to_target=0.0)}, {"source_to_target"}),
        ({"contrast": CROSS_ENTROPIES.contrast}, {"target_to_source", "source_to_target"}),
    ],
)
def test_a_switch_leaves_its_term_out(off: dict[str, object], gone: set[str]):
    _, _, everything = gradients([part(slice(0, 2))], ALONE, STAGE)
    _, _, left = gradients([part(slice(0, 2))], ALONE, replace(STAGE, **off))
    assert set(everything) - set(left) == gone
    assert set(left) < set(everything)


def test_a_weight_multiplies_its_term():
    _, _, once = gradients([part(slice(0, 2))], ALONE, STAGE)
    double = replace(STAGE, static_weight=0.8, entropy_weight=0.6)
    _, _, twice = gradients([part(slice(0, 2))], ALONE, double)
    for name in ("static_cross_entropy", "entropy"):
        assert twice[name] == pytest.approx(2 * once[name])
    assert twice["source_cross_entropy"] == once["source_cross_entropy"]


def test_cross_entropy_is_taken_at_every_pixel():
    network = build_network(seed=0)
    one = part(slice(0, 2))
    read = BothDomains(network, Precision(CPU, ALONE))
    done = part_losses(network, read, None, one, STAGE, 0, shares([one], ALONE))
    logits = network(one.source.images).logits
    wide = torch.nn.functional.interpolate(logits, size=(16, 32), mode="bilinear")
    expected = cross_entropy(wide, one.source.labels)
    torch.testing.assert_close(done.losses["source_cross_entropy"], expected)


def test_without_any_label_the_loss_is_0():
    one = part(slice(0, 2))
    empty = torch.full_like(one.source.labels, 255)
    blank = Part(one.source._replace(labels=empty), None)
    network = build_network(seed=0)
    read = BothDomains(network, Precision(CPU, ALONE))
    done = part_losses(network, read, None, blank, STAGE, None, shares([blank], ALONE))
    assert done.losses["source_cross_entropy"] == 0


class Stems(Segmenter):
    """Notes which stem was asked for."""

    def __init__(self) -> None:
        super().__init__(feature_dim=1, num_classes=1, stride=1, align_corners=False)
        self.asked: list[str] = []

    def forward(self, images: torch.Tensor, domain: str = "target") -> Output:
        self.asked.append(domain)
        return Output(images.bfloat16(), images.bfloat16())


def test_the_warm_up_trains_the_stem_that_is_evaluated_and_outputs_are_float32():
    network = Stems()
    read = BothDomains(network, Precision(CPU, ALONE))
    seen, none = read(torch.zeros(1, 3, 2, 2), None)
    assert none is None
    assert seen.logits.dtype == seen.features.dtype == torch.float32
    read(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))
    assert network.asked == ["target", "source", "target"]


def test_a_stage_knows_what_it_uses():
    assert AdaptationStage().contrasts
    assert not CROSS_ENTROPIES.contrasts
    assert CROSS_ENTROPIES.uses_static
    assert not replace(CROSS_ENTROPIES, static_weight=0.0).uses_static
    assert not replace(CROSS_ENTROPIES, static_labels=False).uses_static
