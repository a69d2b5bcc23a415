"""Cross-entropy at the labels' resolution from smaller logits: `upsampled_cross_entropy`."""

from torch import Tensor

from protocontrast.calls import UpsampledCall
from protocontrast.checks import (
    check_device,
    check_floating,
    check_ignore_index,
    check_like,
    check_no_grad,
    public,
    sentence,
)
from protocontrast.functional import hints
from protocontrast.functional.maps import check_classes
from protocontrast.functional.pixels import comparable
from protocontrast.functional.settings import Backend, Reduction, UpsampledSettings
from protocontrast.ops import upsampled_cross_entropy as operator
from protocontrast.ops.backend import choose


def _check_size(labels: tuple[int, ...], logits: tuple[int, ...]) -> None:
    """As many images and axes as the logits, and along no axis smaller."""
    images, grid = logits[0], logits[2:]
    alike = len(labels) == 1 + len(grid) and labels[0] == images
    if alike and all(size >= least for size, least in zip(labels[1:], grid, strict=True)):
        return
    names = "ZHW"[-len(grid) :]
    *first, last = [f"{name} >= {least}" for name, least in zip(names, grid, strict=True)]
    least = f"{', '.join(first)} and {last}"
    requirement = f"of shape ({images}, {', '.join(names)}) with {least} for logits {logits}"
    hint = hints.label_map("labels", labels, len(grid), logits[1])
    # Labels are most often some whole times as large as their logits.
    if (
        not hint
        and alike
        and all(size % least == 0 for size, least in zip(labels[1:], logits[1:-1], strict=True))
    ):
        hint = hints.channels_last("logits", logits, logits[-1])
    if not hint and alike:
        mode = "bilinear" if len(grid) == 2 else "trilinear"
        hint = f'F.interpolate(logits, labels.shape[1:], mode="{mode}") makes smaller logits.'
    raise ValueError(sentence("labels", requirement, labels, hint))


@public
def upsampled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    class_weight: Tensor | None = None,
    ignore_index: int = 255,
    align_corners: bool = False,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """Cross-entropy of bilinearly upsampled logits, without the upsampled map.

    With z the logits at the size of the labels, as `torch.nn.functional.interpolate` makes them,

        loss_i = cw_{y_i} (logsumexp_c z_ic - z_{i y_i}).

    Value and gradient are those of interpolate and cross_entropy in a row, but memory does not grow
    with the height and width of the labels. Logits of volumes are upsampled trilinearly: first
    along the depth, which holds (B, C, Z, h, w) and its gradient, then slice by slice.

    Args:
        logits: any memory format; scores of each class on a grid. A class at -inf is absent, and so
            it is between cells, wherever such a one has a share in the blend.
        labels: classes 0..C-1 or `ignore_index` in any integer dtype, along no axis smaller than
            the logits.
        class_weight: cw_c, any floating dtype. 0 ignores the class's pixels.
        ignore_index: label of pixels without a class, outside 0..C-1.
        align_corners: whether the centres of the corner cells fall on those of the corner pixels,
            or their outer corners do. Take what the network was trained with.
        label_smoothing: eps in [0, 1], as in `torch.nn.functional.cross_entropy`: (1 - eps) of the
            loss and eps / C of its sum over all classes in place of y, classes at -inf left out. A
            pixel of a class of weight 0 keeps the second part.
        reduction: "mean" divides by the summed weights, "sum", or "none".
        backend: "auto", or an implementation by name, which then never falls back.

    Shape:
        logits (B, C, h, w) with labels (B, H, W), or (B, C, z, h, w) with labels (B, Z, H, W), with
        Z >= z, H >= h and W >= w; class_weight (C,). Result () for "mean" and "sum", else like the
        labels.

    Returns:
        Loss in nats, float32 (float64 for float64 logits). Ignored pixels give exactly 0 and no
        gradient even where they read NaN; so do pixels whose own class is absent, since a prototype
        may be missing. With no valid pixel the loss is exactly 0 with a zero, connected gradient.
        Absent classes get gradient 0. Differentiating the gradient again raises.

    Raises:
        ValueError: shapes, devices or settings disagree, labels are smaller than the logits, or
            (CPU) a label is no class. On a GPU a wrong label turns the loss into NaN instead;
            `check_labels` names it.
        TypeError: a wrong dtype, or a gradient asked for the weights.

    Source:
        (M16) of docs/maths.md.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[4.0, 0.0]], [[0.0, 4.0]]]])
        >>> labels = torch.tensor([[[0, 0, 1, 255]]])
        >>> upsampled_cross_entropy(logits, labels, reduction="none")
        tensor([[[0.0181, 0.1269, 0.1269, 0.0000]]])
    """
    check_floating("logits", logits)
    shape = tuple(logits.shape)
    if len(shape) not in (4, 5):
        requirement = "of shape (B, C, z, h, w) or (B, C, h, w)"
        raise ValueError(sentence("logits", requirement, shape))
    if 0 in shape[1:]:
        requirement = "with at least one class, row and column"
        raise ValueError(sentence("logits", requirement, shape))
    num_classes = shape[1]
    check_classes("labels", labels, len(shape) - 2, num_classes)
    _check_size(tuple(labels.shape), shape)
    check_device("labels", labels, logits, "logits")
    if class_weight is not None:
        check_like("class_weight", class_weight, (num_classes,), "= (C,)", logits, "logits")
        check_no_grad("class_weight", class_weight, to="logits")
    settings = UpsampledSettings(ignore_index, align_corners, label_smoothing, reduction, backend)
    check_ignore_index(ignore_index, num_classes)
    chosen = choose(settings.backend, "upsampled_cross_entropy", logits)
    labels = comparable(labels, num_classes, ignore_index)
    call = UpsampledCall(
        logits, labels, class_weight, settings.ignore_index, bool(settings.align_corners),
        float(settings.label_smoothing),
    )  # fmt: skip
    return operator.upsampled_cross_entropy(call, settings.reduction, chosen)
