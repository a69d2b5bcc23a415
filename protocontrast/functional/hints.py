"""What is usually meant where a shape is wrong, as code that mends it; "" where nobody can tell."""

import math

Shape = tuple[int, ...]

GRID = "labels_to_grid brings labels to the features' size."
ONE_HOT = "makes classes of one-hot labels."


def channels_last(argument: str, shape: Shape, channels: int) -> str:
    """Tokens (B, P, D) or maps (B, H, W, D) where channels come second."""
    if len(shape) < 3 or shape[-1] != channels:
        return ""
    if len(shape) == 3:
        return f"channels are dimension 1: {argument}.transpose(1, 2)."
    # The width of a map may be that number by chance.
    return f"channels are dimension 1; where they come last, {argument}.movedim(-1, 1)."


def one_per_pixel(argument: str, got: Shape, wanted: Shape, num_classes: int | None = None) -> str:
    """Labels or weights with an axis too many, or pixels in another form than their features."""
    if got == (*wanted[:1], 1, *wanted[1:]):
        return f"{argument}.squeeze(1)."
    if num_classes is not None and got == (*wanted[:1], num_classes, *wanted[1:]):
        return f"{argument}.argmax(dim=1) {ONE_HOT}"
    if num_classes is not None and got == (*wanted, num_classes):
        return f"{argument}.argmax(dim=-1) {ONE_HOT}"
    if got == (*wanted, 1):
        return f"{argument}.squeeze(-1)."
    if len(got) > len(wanted) and math.prod(got) == math.prod(wanted):
        if len(wanted) == 1:
            return f"{argument}.flatten()."
        if len(wanted) == 2 and got[0] == wanted[0]:
            return f"{argument}.flatten(1)."
    if len(got) == 2 and len(wanted) > 2 and got == (wanted[0], math.prod(wanted[1:])):
        return f"{argument}.unflatten(1, {wanted[1:]})."
    return ""


def label_map(argument: str, got: Shape, axes: int, num_classes: int | None = None) -> str:
    """Label maps of any resolution with an axis too many; they should have `axes` beside B."""
    if len(got) != axes + 2:
        return ""
    if got[1] == 1:
        return f"{argument}.squeeze(1)."
    if got[1] == num_classes == got[-1]:
        return f"{argument}.argmax(dim=1), or dim=-1 where classes come last, {ONE_HOT}"
    if got[1] == num_classes:
        return f"{argument}.argmax(dim=1) {ONE_HOT}"
    if got[-1] == num_classes:
        return f"{argument}.argmax(dim=-1) {ONE_HOT}"
    return f"{argument}.squeeze(-1)." if got[-1] == 1 else ""


def map_of_tokens(argument: str, shape: Shape, channels: int) -> str:
    """Rows of pixels where a map or a volume is needed."""
    if len(shape) != 3:
        return ""
    if shape[1] == channels:
        return f"{argument}.unflatten(2, (h, w)) is a map."
    if shape[2] == channels:
        return f"{argument}.transpose(1, 2).unflatten(2, (h, w)) is a map."
    return ""
