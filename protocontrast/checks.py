"""What an argument must be, said in one sentence: metadata checks, and `check_labels` for values.

Metadata (shape, dtype, device, ranges of settings) costs nothing and is always checked. Values of
labels are read here only, by `check_labels` and by the operators' CPU kernels.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Hashable
from numbers import Integral, Real
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._C import _functorch as wrappers

FEATURE_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LABEL_DTYPES = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)

SMALLEST_DIVISOR = 2.0**-126
"""The least normal float32. Of smaller divisors some are taken for 0, some have no inverse."""

LARGEST_INTEGER = 2**63 - 1

Given = ParamSpec("Given")
Result = TypeVar("Result")

LONGEST_VALUE = 80
"""Letters of a value that a sentence shows; of a longer one it names the type."""

LOOKED_AT = 2**17
"""Labels whose values are checked at a time on a CPU."""


TRACEABLE = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 11)
"""Whether torch.compile can follow a call, named tuples and all."""


class Sentence(str):
    """What is wrong with a call; the outermost public function puts its name before it."""

    def said_by(self, function: str) -> "Sentence":
        """The same with this name, and no other, before it."""
        return Sentence(f"{function}: {self[self.index('expected ') :]}")

    def naming(self, labels: str) -> "Sentence":
        """The same of the argument that the caller gave the labels as."""
        return Sentence(self.replace("expected labels ", f"expected {labels} ", 1))


def sentence(argument: str, requirement: str, got: object, hint: str = "") -> Sentence:
    """The one form of every error message of this library."""
    text = f"expected {argument} {requirement}, got {got}."
    return Sentence(f"{text} Hint: {hint}" if hint else text)


def called(name: str) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """What is refused inside the function is said by this name, whoever said it further in."""

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        # Without its attributes: by one of them, torch's `disable` would find the inner function.
        @functools.wraps(function, updated=())
        def checked(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            try:
                return function(*args, **kwargs)
            except (ValueError, TypeError) as error:
                if error.args and isinstance(error.args[0], Sentence):
                    error.args = (error.args[0].said_by(name),)
                raise

        # Beside a compiled program the call runs as it does without a compiler.
        return checked if TRACEABLE else torch.compiler.disable(checked)

    return decorate


def public(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """What is refused inside is said by the function's own name."""
    return called(function.__name__)(function)


def shown(value: object) -> str:
    """The value as a sentence shows it: in one line, whatever it is."""
    text, name, shape = "", type(value).__name__, None
    # An integer may have more digits than Python prints, a nested tensor has no shape.
    with contextlib.suppress(Exception):
        text = repr(value)
        shape = getattr(value, "shape", None)
    if text and len(text) <= LONGEST_VALUE and "\n" not in text:
        return text
    return (
        f"{name} of shape {tuple(shape)}" if isinstance(shape, tuple) else f"a value of type {name}"
    )


def check_tensor(argument: str, value: object) -> None:
    """TypeError unless a tensor that has a number in every place."""
    if not isinstance(value, Tensor):
        raise TypeError(sentence(argument, "to be a torch.Tensor", type(value).__name__))
    if value.is_nested:
        hint = f"torch.stack({argument}.unbind()) where all parts are of one size."
        raise TypeError(sentence(argument, "to be a dense tensor", "a nested one", hint))
    if value.layout != torch.strided:
        hint = f"{argument}.to_dense()."
        raise TypeError(sentence(argument, "to be a dense tensor", value.layout, hint))
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        _check_mapped(argument, value)


def _check_mapped(argument: str, value: Tensor) -> None:
    """ValueError where torch.func.vmap maps over nothing, so that no call says what comes out."""
    while wrappers.is_functorch_wrapped_tensor(value):
        inner = wrappers.get_unwrapped(value)
        if wrappers.is_batchedtensor(value) and not inner.shape[wrappers.maybe_get_bdim(value)]:
            requirement = "with an element at least along the dimension of vmap"
            hint = "leave out empty batches."
            raise ValueError(sentence(argument, requirement, f"shape {tuple(inner.shape)}", hint))
        value = inner


def check_floating(argument: str, value: object) -> None:
    """TypeError unless a float16, bfloat16, float32 or float64 tensor."""
    check_tensor(argument, value)
    if value.dtype not in FEATURE_DTYPES:  # type: ignore[attr-defined]
        dtype = value.dtype  # type: ignore[attr-defined]
        raise TypeError(sentence(argument, "of a floating dtype", dtype))


def check_integer(argument: str, value: object) -> None:
    """TypeError unless an integer tensor."""
    check_tensor(argument, value)
    if value.dtype not in LABEL_DTYPES:  # type: ignore[attr-defined]
        dtype = value.dtype  # type: ignore[attr-defined]
        hint = (
            "a boolean mask is not a label map; use labels.long()." if dtype == torch.bool else ""
        )
        raise TypeError(sentence(argument, "of an integer dtype", dtype, hint))


def check_shape(
    argument: str, value: Tensor, shape: tuple[int, ...], reason: str, hint: str = ""
) -> None:
    """ValueError unless the shape is exactly `shape`; `reason` says where that shape comes from."""
    if tuple(value.shape) != tuple(shape):
        requirement = f"of shape {tuple(shape)} {reason}"
        raise ValueError(sentence(argument, requirement, tuple(value.shape), hint))


def check_device(argument: str, value: Tensor, reference: Tensor, name: str) -> None:
    """ValueError unless on the reference's device."""
    if value.device != reference.device:
        requirement = f"on {reference.device} like {name}"
        raise ValueError(sentence(argument, requirement, value.device))


def check_like(
    argument: str, value: Tensor, shape: tuple[int, ...], reason: str, reference: Tensor, name: str
) -> None:
    """A floating tensor of exactly this shape, on the reference's device."""
    check_floating(argument, value)
    check_shape(argument, value, shape, reason)
    check_device(argument, value, reference, name)


def check_no_grad(argument: str, value: Tensor | None, to: str = "features and prototypes") -> None:
    """TypeError if a gradient is asked for a tensor that never gets one; `to` says which do."""
    if value is not None and value.requires_grad and torch.is_grad_enabled():
        hint = f"pass {argument}.detach(); gradients go to {to} only."
        raise TypeError(sentence(argument, "without gradient", "requires_grad=True", hint))


def check_choice(argument: str, value: object, choices: Collection[object]) -> None:
    """ValueError unless one of the choices."""
    # Compared with a string or a flag, an array or a tensor gives more than one answer, or True.
    plain = isinstance(value, str) or (
        isinstance(value, Hashable) and not isinstance(value, Tensor)
    )
    if not plain or value not in choices:
        names = " or ".join(repr(choice) for choice in choices)
        raise ValueError(sentence(argument, f"to be {names}", shown(value)))


def check_flag(argument: str, value: object) -> None:
    """TypeError unless True or False; numpy's are, 0 and 1 are not."""
    numpys = type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")
    if not (isinstance(value, bool) or numpys):
        raise TypeError(sentence(argument, "to be True or False", shown(value)))


def is_number(value: object) -> bool:
    """Whether a real number that a float holds, which neither NaN nor a bool is; numpy's are."""
    if type(value) is float:  # asked first: what is asked of an abstract class takes long
        return value == value
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        number = float(value)
    except OverflowError:
        return False
    return number == number


def check_number(argument: str, value: float) -> None:
    """ValueError unless a number."""
    if not is_number(value):
        raise ValueError(sentence(argument, "to be a number", shown(value)))


def check_factor(argument: str, value: float) -> None:
    """ValueError unless a finite number: infinity times 0 is none."""
    check_number(argument, value)
    if math.isinf(float(value)):
        raise ValueError(sentence(argument, "to be a finite number", shown(value)))


def check_positive(argument: str, value: float) -> None:
    """ValueError unless a finite number above 0, and not so small that float32 loses it."""
    if not is_number(value) or not 0 < float(value) < math.inf:
        raise ValueError(sentence(argument, "to be a finite number > 0", shown(value)))
    if float(value) < SMALLEST_DIVISOR:
        requirement = "to be a number >= 2**-126, the least that float32 divides by"
        raise ValueError(sentence(argument, requirement, shown(value)))


def check_masses(argument: str, value: Tensor) -> None:
    """ValueError if a number is below 0 or infinite; NaN is let pass. Reads every value."""
    values = value.double()
    wrong = values[(values < 0) | values.isinf()]
    if len(wrong):
        got = f"{wrong[0].item():g} (first of {len(wrong)} wrong among {len(value)})"
        raise ValueError(sentence(argument, "to be finite and >= 0", got))


def check_share(argument: str, value: float) -> None:
    """ValueError unless a number in [0, 1]."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(sentence(argument, "to be a number in [0, 1]", shown(value)))


def check_count(argument: str, value: int) -> None:
    """ValueError unless an integer of at least 1."""
    integer = isinstance(value, (Integral, torch.SymInt)) and not isinstance(value, bool)
    if not integer or value < 1:
        raise ValueError(sentence(argument, "to be an integer >= 1", shown(value)))
    if isinstance(value, Integral) and value > LARGEST_INTEGER:
        requirement = "to be an integer of 64 bits"
        raise ValueError(sentence(argument, requirement, shown(value)))


def check_integer_number(argument: str, value: int) -> None:
    """ValueError unless an integer of 64 bits."""
    integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not integer or not -LARGEST_INTEGER - 1 <= value <= LARGEST_INTEGER:
        requirement = "to be an integer of 64 bits"
        raise ValueError(sentence(argument, requirement, shown(value)))


def check_ignore_index(
    value: int,
    num_classes: int | None = None,
    classes: str = "the classes",
    hint: str = "pixels of that class would be lost; the usual ignore value below 0 is -100.",
) -> None:
    """TypeError unless an integer, ValueError unless one of 64 bits or if one of the classes."""
    if type(value) is not int and (not isinstance(value, Integral) or isinstance(value, bool)):
        hint = "the usual ignore values are 255 and -100."
        raise TypeError(sentence("ignore_index", "to be an integer", shown(value), hint))
    if not -LARGEST_INTEGER - 1 <= value <= LARGEST_INTEGER:
        hint = "labels are at most of 64 bits; the usual ignore values are 255 and -100."
        requirement = "to be an integer of 64 bits"
        raise ValueError(sentence("ignore_index", requirement, shown(value), hint))
    if num_classes is not None and 0 <= value < num_classes:
        requirement = f"outside 0..{num_classes - 1}, {classes}"
        raise ValueError(sentence("ignore_index", requirement, value, hint))


def refuse_wrong_values(function: str, labels: Tensor, num_classes: int, ignore_index: int) -> None:
    """ValueError if a label is neither a class nor `ignore_index`; reads every value.

    In a compiled program no public function is left to say it, so the operator does.
    """
    if labels.is_meta:  # has none
        return

    def marked(some: Tensor) -> Tensor:
        return ((some < 0) | (some >= num_classes)) & (some != ignore_index)

    # A host looks at a few at a time, which stay in its caches; a device is asked once.
    parts = labels.flatten().split(LOOKED_AT) if labels.device.type == "cpu" else (labels,)
    for part in parts:
        if not bool(marked(part).any()):
            continue
        wrong = marked(labels)
        value = int(labels[wrong].flatten()[0])
        count = f"value {value} (first of {int(wrong.sum())} wrong among {labels.numel()} pixels)"
        hint = "the usual ignore values are 255 and -100; is ignore_index the one of these labels?"
        if value == num_classes:
            classes = "the number of classes (num_classes, prototypes or channels of the logits)"
            hint = f"is {classes} too small by one? {hint}"
        requirement = f"in 0..{num_classes - 1} or ignore_index = {ignore_index}"
        raise ValueError(sentence("labels", requirement, count, hint).said_by(function))


@public
def check_labels(labels: Tensor, num_classes: int, *, ignore_index: int = 255) -> None:
    """Raise if a label is neither a class nor `ignore_index`.

    Args:
        labels: any shape, any integer dtype, on any device.
        num_classes: C; classes are 0..C-1.
        ignore_index: the value of unlabelled pixels.

    Returns:
        None. On a GPU this waits for the device, so call it while searching for a mistake, not in
        every step.

    Raises:
        TypeError: `labels` is not an integer tensor.
        ValueError: a wrong value occurs; the sentence names the value and how many there are. Or
            `ignore_index` is a class.

    Example:
        >>> import torch
        >>> check_labels(torch.tensor([0, 1, 255]), 2)
    """
    check_integer("labels", labels)
    check_count("num_classes", num_classes)
    check_ignore_index(ignore_index, num_classes)
    refuse_wrong_values("check_labels", labels.long(), num_classes, ignore_index)
