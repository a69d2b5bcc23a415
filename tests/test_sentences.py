"""The table of sentences.txt holds of every public call, to the letter."""

import copy
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import protocontrast as pc
from protocontrast import checks
from tests import bad_arguments
from tests.bad_arguments import Call, calls
from tests.sentences import assert_raises
from tests.test_bad_arguments import parameters

TABLE = Path(__file__).with_name("sentences.txt")
NOTHING_GIVEN = dict.fromkeys(
    f"{side}_{what}" for side in ("source", "target") for what in ("prototypes", "present")
)
NAMES = {**vars(bad_arguments), "nan": math.nan, "inf": math.inf, "NOTHING_GIVEN": NOTHING_GIVEN}
CALLS = calls()


def arguments_of(name: str) -> dict[str, Any]:
    """The checked parameters of a call."""
    return dict(parameters(CALLS[name].function))


SPEAKERS = {
    "BidirectionalContrastLoss.forward": "bidirectional_contrast",
    "PairContrastLoss.forward": "pair_contrast",
    "PixelPrototypeContrastLoss.forward": "pixel_prototype_contrast",
    "PrototypeBank.fit": "class_prototypes",
    "PrototypeBank.update": "class_prototypes",
    "UpsampledCrossEntropyLoss.forward": "upsampled_cross_entropy",
}
PARTS = {"anchor_": "anchors", "key_": "keys", "negative_": "negatives"}
PARTS |= {"source_": "source_features", "target_": "target_features"}


class Row(NamedTuple):
    """A call, what is changed in it, and the error that follows, as `Type: caller: sentence`."""

    line: int
    call: str
    argument: str
    changed: dict[str, Any]
    error: str


def belongs_to(call: Call, argument: str) -> str:
    """The features or logits whose pixels an argument describes."""
    for prefix, owner in PARTS.items():
        if argument.startswith(prefix) and owner in call.arguments and owner != argument:
            return owner
    first = ("features", "logits", "scores", "probabilities", "source_features", "anchors")
    return next((name for name in first if name in call.arguments), "")


def named(heading: str, groups: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Calls and arguments of a heading; the argument is "" where it names none."""
    found: list[tuple[str, str]] = []
    without: set[tuple[str, str]] = set()
    for dash, name, arguments in re.findall(r"(-?)([\w.*]+)(?:\(([^)]*)\))?", heading):
        if dash:
            without |= {(name, one) for one in arguments.split() or arguments_of(name)}
        elif name in groups:
            found += groups[name]
        elif name == "*":
            every = ((call, one) for call in CALLS for one in arguments_of(call))
            found += [(call, one) for call, one in every if one in arguments.split()]
        else:
            found += [(name, one) for one in arguments.split() or [""]]
    return [one for one in found if one not in without]


def rows(text: str) -> Iterator[Row]:
    """The rows of the table, one for each call, argument and value."""
    groups: dict[str, list[tuple[str, str]]] = {}
    heading: list[tuple[str, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if ":=" in line:
            name, _, members = line.partition(":=")
            groups[name.strip()] = named(members, groups)
        elif " => " in line:
            given, _, error = line.partition(" => ")
            one = eval(
                f"dict({given})" if not heading[0][1] else f"[{given.replace(' | ', ', ')}]",
                dict(NAMES),
            )
            for call, argument in heading:
                for changed in [one] if not argument else [{argument: value} for value in one]:
                    yield row(number, call, argument, changed, error)
        elif line and not line.startswith("#"):
            heading = named(line, groups)


def row(line: int, call: str, argument: str, changed: dict[str, Any], error: str) -> Row:
    """One row, its sentence filled in."""
    kind, _, text = error.partition(": ")
    if text.startswith("expected "):
        text = f"{SPEAKERS.get(call, call.partition('.')[0])}: {text}"
    if argument:
        value, of = changed[argument], belongs_to(CALLS[call], argument)
        shape = tuple(CALLS[call].arguments[of].shape) if of else ()
        tensor = value if isinstance(value, Tensor) and not value.is_nested else torch.ones(2)
        text = text.format(
            x=argument, value=value, shown=checks.shown(value), type=type(value).__name__, of=of,
            shape=shape, got=tuple(tensor.shape), dtype=tensor.dtype, layout=tensor.layout,
            number=tensor.item() if tensor.numel() == 1 and not tensor.is_meta else "",
        )  # fmt: skip
    return Row(line, call, argument, changed, f"{kind}: {text}")


ROWS = list(rows(TABLE.read_text()))


def state(call: Call) -> dict[str, Tensor]:
    """What a refused call may not move."""
    owner = getattr(call.function, "__self__", call.function)
    return copy.deepcopy(owner.state_dict()) if isinstance(owner, nn.Module) else {}


def what_is_said(call: Call, changed: dict[str, Any]) -> str:
    before = state(call)
    try:
        call.function(**{**call.arguments, **changed})
    except Exception as caught:
        after = state(call)
        if not all(torch.equal(after[name], value) for name, value in before.items()):
            return "its state has moved"
        return f"{type(caught).__name__}: {caught}"
    return "nothing"


def others(name: str) -> list[Call]:
    """The same call in other words, of which the same is said."""
    call = CALLS[name]
    if name == "BiCL.forward":
        settings: list[dict[str, Any]] = [{"bank_update": "after"}, {"prototypes": "batch"}]
        return [Call(pc.BiCL(3, 4, **one), call.arguments) for one in settings]
    if name in ("PixelPrototypeContrastLoss.forward", "BidirectionalContrastLoss.forward"):
        twin = copy.deepcopy(call.function)
        twin.validate = True
        return [Call(twin, call.arguments)]
    if name == "bidirectional_contrast":
        own = {key: value for key, value in call.arguments.items() if key not in NOTHING_GIVEN}
        return [Call(call.function, {**own, "pairwise": True})]
    return []


def differences(call: Call, expected: Iterable[Row]) -> list[str]:
    """The rows that do not hold of a call that has run before, with what it says instead."""
    call.function(**call.arguments)
    found = []
    for one in expected:
        said = what_is_said(call, one.changed)
        if said != one.error:
            found.append(f"line {one.line}, {one.argument}\n  expected {one.error}\n  got {said}")
    return found


@pytest.mark.parametrize("name", CALLS)
def test_sentences(name: str) -> None:
    own = [one for one in ROWS if one.call == name]
    found = differences(calls()[name], own)
    for other in others(name):
        found += differences(other, [one for one in own if one.argument in other.arguments])
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_has_a_sentence(name: str) -> None:
    said = {argument for one in ROWS if one.call == name for argument in one.changed}
    assert set(arguments_of(name)) - said == set()


def test_every_sentence_has_one_form() -> None:
    form = re.compile(
        r"(Type|Value)Error: (\w+): expected ([^\n]+), got ([^\n]+)\.( Hint: [^\n]+[.?])?"
    )
    for one in ROWS:
        found = form.fullmatch(one.error)
        assert found and found[2] in pc.__all__ and len(one.error) <= 400, one.error


def test_the_comparison_can_fail() -> None:
    call = calls()["transfer_labels"]
    error = next(one.error for one in ROWS if one.call == "transfer_labels")
    right = Row(1, "transfer_labels", "measure", {"measure": "margin"}, what_is_said(call, {}))
    assert differences(call, [right]) != []
    right = right._replace(error=what_is_said(call, right.changed))
    assert differences(call, [right]) == []
    for wrong in (right.error[:-1], right.error + " ", right.error.replace("Value", "Type"), error):
        assert differences(call, [right._replace(error=wrong)]) != []
    bank = pc.PrototypeBank(3, 4)

    def moves(stats: Any) -> None:
        bank.prototypes += 1
        raise ValueError("too late")

    moving = Call(moves, {"stats": None})
    moves.__self__ = bank  # type: ignore[attr-defined]
    assert what_is_said(moving, {}) == "its state has moved"
    assert what_is_said(call, {}) == "nothing"


def test_the_check_of_a_sentence_can_fail() -> None:
    def call() -> None:
        raise ValueError("f: expected x to be 1, got 2.")

    text = "f: expected x to be 1, got 2."
    assert_raises(ValueError, text, call)
    for error, wrong in [(ValueError, text[:-1]), (ValueError, text + " "), (Exception, text)]:
        with pytest.raises(AssertionError, match="got ValueError: f"):
            assert_raises(error, wrong, call)
    with pytest.raises(AssertionError, match="got no error"):
        assert_raises(ValueError, text, lambda: None)


OPERATORS = {
    "assign_subclasses": "logits", "bidirectional_contrast": "(contrast|class_prototypes)",
    "pixel_prototype_contrast": "contrast", "prototype_logits": "logits",
    "prototype_pull": "logits", "spread": "logits", "transfer_labels": "transfer",
}  # fmt: skip
"""Where they are not named as the function."""


def pattern(name: str, text: str) -> str:
    return f"ValueError: {SPEAKERS.get(name, name.partition('.')[0])}: " + re.escape(text)


# `default_backend` names one for calls to come, each of which asks for itself.
WITH_A_BACKEND = [
    name
    for name in CALLS
    if name[0].islower() and "backend" in arguments_of(name) and name != "default_backend"
]


@pytest.mark.parametrize("name", WITH_A_BACKEND)
def test_a_missing_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pc.kernels, "OPERATORS", frozenset())
    text = pattern(name, "expected backend for which @ is implemented, got 'triton'. ")
    text = text.replace("@", OPERATORS.get(name, name)) + re.escape(
        'Hint: backend="auto" takes the fastest implementation there is.'
    )
    for call in (CALLS[name], *others(name)):
        assert re.fullmatch(text, what_is_said(call, {"backend": "triton"}))


TOO_FEW = "the number of classes (num_classes, prototypes or channels of the logits)"
WRONG_VALUES = [
    (7, 255, 2, ""),
    (3, 255, 1, f"is {TOO_FEW} too small by one? "),
    (255, -100, 3, ""),
    (-100, 255, 12, ""),
    (-1, 255, 1, ""),
]
LABELS = [
    (name, argument)
    for name, call in CALLS.items()
    for argument in ("labels", "source_labels", "target_labels")
    if argument in call.arguments and (name, argument) != ("class_mix", "target_labels")
]
"""The labels of a mixed image that lie below the others are not read."""


def ways(name: str, argument: str) -> Iterator[dict[str, Any]]:
    """What changes the way of labels through a call: backends, smoothing and gradients."""
    known, features = arguments_of(name), belongs_to(CALLS[name], argument)
    options: dict[str, list[Any]] = {
        "backend": ["eager", "naive"] * ("backend" in known),
        "reduction": ["mean", "none"] * ("reduction" in known),
        "label_smoothing": [0.0, 0.1] * ("label_smoothing" in known),
    }
    if features:
        leaf = CALLS[name].arguments[features].clone()
        options[features] = [leaf, leaf.clone().requires_grad_()]
    options = {option: values for option, values in options.items() if values}
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values, strict=True))


@pytest.mark.parametrize(("name", "argument"), LABELS)
def test_values_of_labels(name: str, argument: str) -> None:
    labels = {key: one % 5 for key, one in CALLS[name].arguments.items() if key.endswith("labels")}
    for dtype in (torch.int64, torch.int16, torch.uint8):
        for value, ignore_index, times, hint in WRONG_VALUES:
            given = {} if ignore_index == 255 else {"ignore_index": ignore_index}
            if value < torch.iinfo(dtype).min or not given.keys() <= arguments_of(name).keys():
                continue
            wrong = torch.zeros_like(labels[argument], dtype=dtype)
            wrong.view(-1)[-times:] = value
            spoken = argument if name == "BiCL.forward" else "labels"
            text = pattern(name, f"expected {spoken} in 0..2 or ignore_index = {ignore_index}")
            text += re.escape(f", got value {value} (first of {times} wrong among {wrong.numel()} ")
            text += re.escape(f"pixels). Hint: {hint}the usual ignore values are 255 and -100; ")
            text += re.escape("is ignore_index the one of these labels?")
            for way in ways(name, argument):
                changed = {**labels, argument: wrong, **given, **way}
                for call in (CALLS[name], *others(name)):
                    assert re.fullmatch(text, what_is_said(call, changed))


@pytest.mark.parametrize("settings", [{}, {"bank_update": "after"}, {"prototypes": "batch"}])
@pytest.mark.parametrize("side", ["source_labels", "target_labels"])
def test_validation_reads_labels_first(side: str, settings: dict[str, Any]) -> None:
    call = CALLS["BiCL.forward"]
    call = Call(pc.BiCL(3, 4, validate=True, **settings), call.arguments)
    labels = torch.where(call.arguments[side] == 1, 7, call.arguments[side])
    text = f"ValueError: BiCL: expected {side} in 0..2 or ignore_index = 255, got value 7"
    assert what_is_said(call, {side: labels}).startswith(text)


OTHER_MAPS: list[tuple[Any, str]] = [
    (bad_arguments.LABELS.float(), "TypeError: {} of an integer dtype, got torch.float32."),
    (bad_arguments.LABELS[:1], "ValueError: {} of shape (2, 2, 3) like base, got (1, 2, 3)."),
    (bad_arguments.LABELS.to("meta"), "ValueError: {} on cpu like base, got meta."),
]


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize(("other", "text"), OTHER_MAPS)
def test_maps_that_are_fused(other: Any, text: str, before: int) -> None:
    maps = [bad_arguments.LABELS] * (1 + before)
    error, _, text = text.format(f"expected map {1 + before} of others").partition(": ")
    kind = {"TypeError": TypeError, "ValueError": ValueError}[error]
    assert_raises(kind, f"fuse_labels: {text}", lambda: pc.fuse_labels(*maps, other))


@pytest.mark.parametrize("value", [-100, 300])
@pytest.mark.parametrize("name", [name for name in CALLS if "ignore_index" in arguments_of(name)])
def test_an_integer_that_is_no_class_may_be_ignored(name: str, value: int) -> None:
    call = calls()[name]
    labels = {key: one % 5 for key, one in call.arguments.items() if key.endswith("labels")}
    if "batches" in call.arguments:
        ((features, given),) = call.arguments["batches"]
        labels["batches"] = [(features, given % 5)]
    call.function(**{**call.arguments, **labels, "ignore_index": value})


def test_without_hard_labels_nothing_is_ignored() -> None:
    """Soft targets have no ignore value, pairs no number of classes."""
    wide = {"prototypes": torch.eye(300, 4), "present": None, "class_weight": None}
    soft = torch.ones(2, 300, 2, 3)
    call = {**CALLS["pixel_prototype_contrast"].arguments, **wide, "labels": soft}
    assert pc.pixel_prototype_contrast(**call) > 0
    for name in ("pair_contrast", "fuse_labels"):
        CALLS[name].function(**CALLS[name].arguments, ignore_index=0)
    assert pc.labels_to_grid(bad_arguments.LABELS, (1, 1), ignore_index=0).shape == (2, 1, 1)
