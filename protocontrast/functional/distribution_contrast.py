"""Contrast between pixels and class distributions: `distribution_contrast`."""

from torch import Tensor

from protocontrast.calls import DistributionCall
from protocontrast.checks import check_choice, check_flag, check_ignore_index, check_like, public
from protocontrast.functional.pixels import (
    check_per_class,
    check_prototypes,
    read_features,
    read_pixel_weight,
    read_targets,
)
from protocontrast.functional.settings import REDUCTIONS, Backend, Reduction, read_temperature
from protocontrast.ops import distribution_contrast as operator
from protocontrast.ops.backend import choose


@public
def distribution_contrast(
    features: Tensor,
    labels: Tensor,
    prototypes: Tensor,
    variance: Tensor,
    *,
    present: Tensor | None = None,
    class_weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    normalize: bool = True,
    temperature: float | Tensor = 100.0,
    ignore_index: int = 255,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """Contrast of every pixel with all features a class may have, not with their mean alone.

    The key of class c is drawn from a normal distribution with mean mu_c and variance S_c per
    channel; for infinitely many draws the expected cross-entropy is at most

        loss_i = w_i cw_{y_i} (logsumexp_c z_ic - f_i . mu_{y_i} / temperature),
        z_ic = f_i . mu_c / temperature + sum_d f_id^2 S_cd / (2 temperature^2),

    with f_i at unit length if `normalize`. Soft targets weigh as in `pixel_prototype_contrast`.

    Args:
        features: pixels, any memory format; read in place, never copied whole.
        labels: classes 0..C-1 or `ignore_index` in any integer dtype, or soft targets in a floating
            one.
        prototypes: class means mu, used as they are: `PrototypeBank.prototypes`. Rows of absent
            classes are never read and may hold NaN.
        variance: S >= 0, one row per class: `PrototypeBank.variance`; absent rows as above.
        present: which classes have a distribution. None: all. Absent ones leave the sum over
            classes, and pixels labelled with one are ignored.
        class_weight: cw_c, any floating dtype. 0 ignores the class's pixels.
        pixel_weight: w_i, any floating dtype. 0 ignores the pixel.
        normalize: features to unit length; means and variances are not touched.
        temperature: divides the products, > 0. The default is that of the source, at which losses
            of unit vectors differ in the second digit only. A number, for each of which
            `torch.compile` makes a program, or a tensor (), which may be annealed within one, or
            learnt: it divides the classes' rows, and nothing more is held.
        ignore_index: label of pixels without a class, outside 0..C-1.
        reduction: "mean" divides by the summed weights w_i cw_{y_i}, "sum", or "none".
        backend: "auto", or an implementation by name, which then never falls back.

    Shape:
        features (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D); labels (B, Z, H, W), (B, H, W),
        (B, P) or (N,), soft targets (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C); prototypes,
        variance (C, D); present, class_weight (C,); pixel_weight like hard labels. Result () for
        "mean" and "sum", else the pixels' shape.

    Returns:
        Loss in nats, >= 0 with one class per pixel, float32 (float64 for float64 features). Ignored
        pixels give exactly 0 and gradient 0 even where their features are NaN; with no valid pixel
        the loss is exactly 0 with zero, connected gradients. With zero variance it is
        `pixel_prototype_contrast` under "dot", of unit features. Gradients go to features and,
        where they require it, to prototypes, variance and a temperature, once.

    Raises:
        ValueError: shapes, devices or settings disagree, or (CPU) a label is no class. On a GPU a
            wrong label turns the loss into NaN instead.
        TypeError: a wrong dtype, or a gradient asked for labels or weights.

    Source:
        Xie et al., SePiCo, arXiv 2204.08808 (distribution-aware contrast); (D3) of
        docs/distributions.md.

    Example:
        >>> import torch
        >>> rows, labels = torch.eye(2), torch.tensor([0, 1])
        >>> for spread in (0.0, 2.0):
        ...     variance = torch.tensor([[0.0, spread], [0.0, 0.0]])
        ...     loss = distribution_contrast(rows, labels, rows, variance, temperature=1.0)
        ...     print(f"{loss.item():.4f}")
        0.3133
        0.5032
    """
    pixels = read_features(features)
    check_prototypes(pixels, prototypes)
    num_classes = prototypes.shape[0]
    shape = tuple(prototypes.shape)
    check_like("variance", variance, shape, "like prototypes", features, "features")
    check_choice("reduction", reduction, REDUCTIONS)
    check_flag("normalize", normalize)
    temperature = read_temperature(temperature, features)
    check_ignore_index(ignore_index)
    check_per_class(pixels, "present", present, num_classes, boolean=True)
    check_per_class(pixels, "class_weight", class_weight, num_classes)
    call = DistributionCall(
        pixels.features,
        read_targets(pixels, labels, num_classes, ignore_index),
        prototypes,
        variance,
        present,
        class_weight,
        read_pixel_weight(pixels, pixel_weight),
        bool(normalize),
        temperature,
        ignore_index,
    )
    chosen = choose(backend, "distribution_contrast", features)
    loss = operator.distribution_contrast(call, reduction, chosen)
    return pixels.restored(loss) if reduction == "none" else loss
