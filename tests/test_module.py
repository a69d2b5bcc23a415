"""Settings of modules: refused when they are replaced as when they are given."""

import copy
import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import protocontrast as pc
from tests.sentences import assert_raises

MODULES: dict[str, Callable[[], Any]] = {
    "PixelPrototypeContrastLoss": pc.PixelPrototypeContrastLoss,
    "BidirectionalContrastLoss": lambda: pc.BidirectionalContrastLoss(3),
    "PairContrastLoss": pc.PairContrastLoss,
    "UpsampledCrossEntropyLoss": pc.UpsampledCrossEntropyLoss,
    "BiCL": lambda: pc.BiCL(3, 4),
}


@pytest.mark.parametrize("name", MODULES)
def test_every_setting_is_checked_when_it_is_replaced(name: str) -> None:
    module = MODULES[name]()
    assert module.given()
    for setting, before in module.given().items():
        with pytest.raises((ValueError, TypeError), match=f"^{name}: expected {setting} ") as error:
            setattr(module, setting, None)
        assert getattr(module, setting) is before is getattr(module.settings, setting)
        if setting != "num_classes":
            build = type(module)
            place = {"BidirectionalContrastLoss": (3,), "BiCL": (3, 4)}.get(name, ())
            again = partial(build, *place, **{setting: None})
            assert_raises(type(error.value), str(error.value), again)


def test_settings_that_fit_one_another_only_are_checked_together() -> None:
    loss = pc.PixelPrototypeContrastLoss(similarity="dot")
    text = (
        'PixelPrototypeContrastLoss: expected similarity to be "cosine" with absent="floor", got '
        "'dot'. Hint: only a cosine has a lowest value; use absent=\"mask\"."
    )
    assert_raises(ValueError, text, lambda: setattr(loss, "absent", "floor"))
    loss.similarity = "cosine"
    loss.absent = "floor"
    assert (loss.settings.similarity, loss.settings.absent) == ("cosine", "floor")


def test_what_is_replaced_is_used_and_shown() -> None:
    bicl = pc.BiCL(3, 4)
    bicl.threshold, bicl.temperature = math.inf, torch.tensor(0.5)
    assert "temperature=0.5, threshold=inf" in repr(bicl)
    assert bicl.settings.threshold == math.inf


@pytest.mark.parametrize("how", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_learnt_temperature_stays_one_parameter(how: Callable[[Any], Any]) -> None:
    loss = how(pc.PairContrastLoss(temperature=nn.Parameter(torch.tensor(0.5))))
    assert [*loss.parameters()] == [loss.temperature]
    assert loss.settings.temperature is loss.temperature is loss.given()["temperature"]
