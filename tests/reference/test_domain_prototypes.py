"""Prototypes of two domains: read from a state, fitted from a network, compared."""

from __future__ import annotations

import re

import pytest
import torch

import protocontrast as pc
from reference.data.arrays import ArrayDomain
from reference.networks.toy import unit_range
from reference.pictures.domain_prototypes import (
    Prototypes,
    alignment,
    fitted_prototypes,
    prototypes_of,
    units,
)
from reference.training.losses import cell_labels

SEEN = torch.tensor([True, True, False])


def moment(source: list[list[float]], target: list[list[float]]) -> Prototypes:
    every = torch.ones(len(source), dtype=torch.bool)
    return Prototypes(torch.tensor(source), torch.tensor(target), None, every, every.clone())


def test_a_state_gives_banks_and_calibrated_prototypes():
    bicl = pc.BiCL(3, 2)
    bicl.source_bank.prototypes.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    bicl.target_bank.prototypes.copy_(torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    bicl.domain_bias.bias.copy_(torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
    bicl.source_bank.present.copy_(SEEN)
    bicl.target_bank.present[0] = True
    found = prototypes_of(bicl.state_dict())
    assert found.calibrated is not None
    assert found.calibrated.tolist() == [[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]
    assert (found.classes, found.shared) == ([0, 1], [0])
    assert found.cosines()[:2, 0].tolist() == [1.0, 0.0]


def test_another_state_is_refused():
    sentence = (
        "prototypes_of: expected the state of BiCL with two banks and a bias, got entries a, b."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        prototypes_of({"b": 1, "a": 2})


def test_alignment_of_a_worked_case():
    found = alignment(moment([[1.0, 0.0], [0.0, 2.0]], [[0.6, 0.8], [-0.8, 0.6]]))
    assert found is not None
    # Own cosines 0.6 and 0.6; the other class at -0.8 and 0.8.
    assert found.own == pytest.approx(0.6)
    assert found.other == pytest.approx(0.0)
    assert (found.nearest_own, found.classes) == (0.5, 2)


def test_one_shared_class_cannot_be_compared():
    one = Prototypes(torch.eye(3), torch.eye(3), None, SEEN, torch.tensor([True, False, False]))
    assert alignment(one) is None


def test_a_row_of_zeros_stays():
    assert units(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0.0, 0.0], [0.6, 0.8]]


def test_fitted_prototypes_are_class_means_of_both_domains(tiny_rows, tiny_scenario):
    network = tiny_rows["source_only"].trained.network
    like = pc.PrototypeBank(19, network.feature_dim)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = fitted_prototypes(network, tiny_scenario.source, tiny_scenario.target_images, like)
    with torch.no_grad():
        seen = network(unit_range(tiny_scenario.source.images)).features.movedim(1, -1)
        new = network(unit_range(tiny_scenario.target_images))
    labels, guesses = cell_labels(tiny_scenario.source.labels), new.logits.argmax(dim=1)
    for label in (0, 2):
        expected = seen[labels == label].mean(dim=0)
        assert torch.allclose(found.source[label], expected, atol=1e-5)
    guessed = int(guesses.flatten().mode().values)
    expected = new.features.movedim(1, -1)[guesses == guessed].mean(dim=0)
    assert torch.allclose(found.target[guessed], expected, atol=1e-5)
    assert found.calibrated is None
    assert found.source_present.tolist() == [bool((labels == c).any()) for c in range(19)]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_source_without_labels_is_refused(tiny_rows, tiny_scenario):
    network = tiny_rows["source_only"].trained.network
    bare = ArrayDomain(tiny_scenario.source.images, None, tiny_scenario.source.stems)
    sentence = "fitted_prototypes: expected a source with labels, got one without."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        fitted_prototypes(
            network,
            bare,
            tiny_scenario.target_images,
            pc.PrototypeBank(19, network.feature_dim),
        )
