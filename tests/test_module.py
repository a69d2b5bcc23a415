"""Settings of modules: refused when they are replaced as when they are given."""

import copy
import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
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
    "PrototypeBank": lambda: pc.PrototypeBank(3, 4),
    "DomainBias": lambda: pc.DomainBias(3, 4),
    "ClassQueue": lambda: pc.ClassQueue(3, 2, 4),
    "ClassThresholds": lambda: pc.ClassThresholds(3, momentum=0.5),
    "LogitBalance": lambda: pc.LogitBalance(3, 2),
}
PLACES = {
    "BidirectionalContrastLoss": (3,), "BiCL": (3, 4), "PrototypeBank": (3, 4),
    "DomainBias": (3, 4), "ClassThresholds": (3,), "LogitBalance": (3, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_every_setting_is_checked_when_it_is_replaced(name: str) -> None:
    module = MODULES[name]()
    assert module.given()
    for setting, before in module.given().items():
        if (name, setting) == ("ClassThresholds", "momentum"):
            continue  # None is a choice
        with pytest.raises((ValueError, TypeError), match=f"^{name}: expected {setting} ") as error:
            setattr(module, setting, None)
        assert getattr(module, setting) is before is getattr(module.settings, setting)
        if setting not in (*module.fixed, "num_classes"):
            again = partial(type(module), *PLACES.get(name, ()), **{setting: None})
            assert_raises(type(error.value), str(error.value), again)


SIZED = [(name, size) for name, build in MODULES.items() for size in build().fixed]


@pytest.mark.parametrize(("name", "size"), SIZED)
def test_what_buffers_were_made_for_stays(name: str, size: str) -> None:
    module = MODULES[name]()
    before = getattr(module, size)
    setattr(module, size, before)
    for other in (20, None, torch.tensor(before)):
        text = f"{name}: expected {size} to stay {before}, got {other!r}. Hint: buffers were made "
        text += f"for it; make another {name}."
        assert_raises(ValueError, text, partial(setattr, module, size, other))
    assert getattr(module, size) == before == getattr(module.settings, size)


@pytest.mark.parametrize(
    ("setting", "value", "wrong", "text"),
    [
        ("momentum", 0.5, 7, "PrototypeBank: expected momentum to be a number in [0, 1], got 7."),
        ("bias_momentum", 0.5, 7, "DomainBias: expected momentum to be a number in [0, 1], got 7."),
        ("bias_warmup", "copy", 7, "DomainBias: expected warmup to be 'zero' or 'copy', got 7."),
        (
            "normalize", "features", 7,
            "PrototypeBank: expected normalize to be False or 'features' or 'prototypes', got 7.",
        ),
    ],
)  # fmt: skip
def test_bicl_hands_on_what_its_parts_hold(
    setting: str, value: object, wrong: object, text: str
) -> None:
    late, early = pc.BiCL(3, 4), pc.BiCL(3, 4, **{setting: value})  # type: ignore[arg-type]
    assert_raises(ValueError, text, partial(setattr, late, setting, wrong))
    assert getattr(late, setting) == getattr(pc.BiCL(3, 4), setting) != value
    setattr(late, setting, value)
    assert getattr(late, setting) == getattr(early, setting) == value
    assert repr(late) == repr(early)


def test_a_bank_of_variances_keeps_them_and_a_replaced_number_is_a_float() -> None:
    bank = pc.PrototypeBank(3, 4, variance=True)
    with pytest.raises(ValueError, match=r"^PrototypeBank: expected variance to be False with nor"):
        bank.normalize = "prototypes"
    bank.momentum = np.float32(0.5)
    assert type(bank.momentum) is float
    assert (bank.normalize, bank.momentum) == (False, 0.5)


def test_what_a_caller_updates_is_not_frozen_by_eval() -> None:
    features, labels = torch.ones(3, 4), torch.arange(3)
    bank, queue = pc.PrototypeBank(3, 4).eval(), pc.ClassQueue(3, 2, 4).eval()
    bank.update(features, labels)
    queue.push(features, labels)
    bicl = pc.BiCL(3, 4).eval()
    bicl(features[None, :, :, None].movedim(2, 1), labels[None, :, None], torch.ones(1, 4, 1, 1))
    assert bank.present.all()
    assert queue.read().valid.any()
    assert not bicl.source_bank.present.any()


def test_an_annealed_temperature_is_a_setting_and_a_learnt_one_is_state() -> None:
    for module in (pc.BiCL, pc.BidirectionalContrastLoss):
        place = PLACES[module.__name__]
        assert "temperature" not in module(*place, temperature=torch.tensor(0.2)).state_dict()
        learnt = nn.Parameter(torch.tensor(0.2))
        assert "temperature" in module(*place, temperature=learnt).state_dict()


def test_what_torch_refuses_changes_no_setting() -> None:
    loss = pc.PairContrastLoss(temperature=nn.Parameter(torch.tensor(0.5)))
    with pytest.raises(TypeError, match="cannot assign"):
        loss.temperature = torch.tensor(0.1)
    assert loss.settings.temperature is loss.temperature


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
