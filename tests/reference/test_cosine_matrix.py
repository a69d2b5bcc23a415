"""The matrix of cosines: every pair that is known, and no other."""

from __future__ import annotations

from xml.etree import ElementTree

import torch

from reference.pictures.cosine_matrix import similarity_matrix
from reference.pictures.domain_prototypes import Prototypes


def test_known_pairs_have_their_cosine():
    source = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    target = torch.tensor([[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]])
    held = Prototypes(
        source, target, None, torch.tensor([True, True, False]), torch.tensor([True, False, True])
    )
    root = ElementTree.fromstring(similarity_matrix("Cosines", held))
    found = [(node.text or "").strip() for node in root.iter() if node.tag.endswith("text")]
    assert [text for text in found if text in {".60", "-1.00", ".80", ".00"}] == [
        ".60",
        "-1.00",
        ".80",
        ".00",
    ]
    # Rows and columns: road, sidewalk and building, once at each side.
    assert [found.count(name) for name in ("road", "sidewalk", "building", "wall")] == [2, 2, 2, 0]
    assert {"Cosines", "source", "target", "cosine"} <= set(found)
