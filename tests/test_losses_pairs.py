"""`PairContrastLoss`: settings stored, the function of the same name called."""

import copy
import pickle
from typing import Any

import pytest
import torch

from protocontrast import PairContrastLoss, pair_contrast
from tests.pair_cases import Case

SETTINGS: list[dict[str, Any]] = [
    {},
    {"similarity": "dot", "temperature": 1.0, "reduction": "sum", "denominator": "all"},
    {"reduction": "none", "ignore_index": 2, "backend": "naive"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_are_passed_on(settings: dict[str, Any]) -> None:
    call = Case(negatives=4, anchor_weight=torch.float32).call()
    rows = [call[name] for name in ("anchors", "anchor_labels", "keys", "key_labels")]
    rest = {name: call[name] for name in ("negatives", "negative_labels", "anchor_weight")}
    loss = PairContrastLoss(**settings)
    expected = pair_contrast(*rows, **rest, **settings)
    assert torch.equal(loss(*rows, **rest), expected)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(loss)))
    assert torch.equal(twin(*rows, **rest), expected)
    assert not loss.state_dict()


def test_without_keys_the_anchors_are_the_keys() -> None:
    call = Case().call()
    rows = call["anchors"], call["anchor_labels"]
    expected = pair_contrast(*rows, *rows, exclude_self=True)
    assert torch.equal(PairContrastLoss(exclude_self=True)(*rows), expected)


def test_repr() -> None:
    loss = PairContrastLoss(denominator="all", exclude_self=True)
    assert repr(loss) == (
        "PairContrastLoss(similarity='cosine', temperature=0.1, denominator='all', "
        "exclude_self=True, ignore_index=255, reduction='mean', backend='auto')"
    )
    assert repr(eval(repr(loss))) == repr(loss)
