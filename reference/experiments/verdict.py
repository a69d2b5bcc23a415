"""What a results table says in words: composed from its numbers, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reference.experiments.row_names import CONTROL


def _points(value: float) -> str:
    return f"{abs(value):.1f} point{'' if f'{abs(value):.1f}' == '1.0' else 's'}"


def signed(value: float, digits: int = 1) -> str:
    """Write a difference with its sign, the minus as wide as the plus.

    Example:
        >>> signed(12.34), signed(-3.0, 0) == "\\N{MINUS SIGN}3"
        ('+12.3', True)
    """
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _compared(value: float, other: str) -> str:
    if abs(value) < 0.05:
        return f"no better and no worse than {other}"
    return f"{_points(value)} {'better' if value > 0 else 'worse'} than {other}"


def _classes(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def gain(results: Mapping[str, Any], row: str, base: str) -> float:
    """Return the mean IoU of one row minus that of another, in points of percent."""
    return float(results[row]["miou"] - results[base]["miou"])


def headline(results: Mapping[str, Any]) -> str:
    """Say in one sentence whether BiCL beats the fair control."""
    value = gain(results, "bicl", CONTROL)
    scores = f"mean IoU {results['bicl']['miou']:.1f}% against {results[CONTROL]['miou']:.1f}%"
    if value > 0.05:
        return f"BiCL gains {_points(value)} over the control: {scores}."
    return f"BiCL does not help here: {_compared(value, 'the control')}, {scores}."


def explanation(results: Mapping[str, Any]) -> list[str]:
    """Put the other comparisons into sentences, the unfavourable ones included.

    Args:
        results: as written to results.json; the row "oracle" may be missing.

    Returns:
        list: sentences, in reading order.
    """
    names = results["class_names"]
    over_entropy = gain(results, "bicl", "entropy_only")
    sentences = [
        "The control is the source-only network trained on the source for as many further steps "
        "as the adaptation takes, so its score says what more training alone would bring: "
        f"{signed(gain(results, CONTROL, 'source_only'))} points.",
        "Minimising the entropy of target predictions, with nothing else, reaches "
        f"{results['entropy_only']['miou']:.1f}%; BiCL is {_compared(over_entropy, 'that')}.",
    ]
    if over_entropy <= 0:
        sentences.append("So in this run the simpler method is at least as good.")
    changes = {
        name: after - before
        for name, after, before in zip(
            names, results["bicl"]["iou"], results[CONTROL]["iou"], strict=True
        )
    }
    order = sorted(changes, key=lambda name: -changes[name])
    best = [f"{name} ({signed(changes[name], 0)})" for name in order[:3] if changes[name] >= 1]
    worst = [
        f"{name} ({signed(changes[name], 0)})" for name in order[:-4:-1] if changes[name] <= -1
    ]
    if best:
        sentences.append(f"Against the control it gains most on {_classes(best)}.")
    sentences.append(
        f"It loses on {_classes(worst)}." if worst else "No class loses a point or more."
    )
    if "oracle" in results:
        left = gain(results, "oracle", "bicl")
        whole = gain(results, "oracle", CONTROL)
        sentence = (
            "The same network trained on the target's own labels "
            f"reaches {results['oracle']['miou']:.1f}%"
        )
        if 0 < left < whole:
            closed = 100 * (1 - left / whole)
            sentence += f"; adaptation closes {closed:.0f}% of the way from the control to it"
        sentences.append(sentence + ".")
    sentences.append(
        "This is one seed; docs/results.md has the spread over seeds, and every ingredient "
        "switched off in turn."
    )
    return sentences
