"""Similarities of pixels to prototypes as logits: `prototype_logits`."""

from einops import rearrange
from torch import Tensor

from protocontrast.calls import LogitsCall
from protocontrast.checks import check_choice, public
from protocontrast.functional.pixels import check_per_class, check_prototypes, read_features
from protocontrast.functional.settings import SIMILARITIES, Backend, Similarity, read_temperature
from protocontrast.ops.backend import choose
from protocontrast.ops.logits import logits


@public
def prototype_logits(
    features: Tensor,
    prototypes: Tensor,
    *,
    present: Tensor | None = None,
    similarity: Similarity = "cosine",
    temperature: float | Tensor = 0.1,
    backend: Backend = "auto",
) -> Tensor:
    """Similarity of every pixel to every prototype over the temperature.

        z_ic = sim(f_i, p_c) / temperature

    C is small, so these fit: distribution contrast, rectified pseudo labels, the maximum over
    several prototypes of a class, consistency losses and Sinkhorn assignment are one line on top.

    Args:
        features: pixels, any memory format.
        prototypes: one row per class; rows of absent classes are never read.
        present: which classes have a prototype. None: all, but under "cosine" all-zero rows are
            absent.
        similarity: "cosine" in [-1, 1], "dot", or "euclidean" (minus the distance).
        temperature: divides the similarity, > 0: a number, for each of which `torch.compile` has
            its program, or a tensor (), which may be annealed within one, or learnt. A tensor
            divides the finished logits, which are then held twice.
        backend: "auto", or an implementation by name.

    Shape:
        features (B, D, Z, H, W), (B, D, H, W), (B, D, P) or (N, D); prototypes (C, D); present
        (C,). Result (B, C, Z, H, W), (B, C, H, W), (B, C, P) or (N, C).

    Returns:
        float32 (float64 for float64 features), -inf where the class is absent; differentiable in
        features, prototypes and a temperature that requires it.

    Raises:
        ValueError: shapes, devices or settings disagree.
        TypeError: a wrong dtype.

    Source:
        (M2) of docs/maths.md.

    Example:
        >>> import torch
        >>> prototype_logits(torch.tensor([[3.0, 4.0]]), torch.eye(2), temperature=0.5)
        tensor([[1.2000, 1.6000]])
    """
    pixels = read_features(features)
    check_prototypes(pixels, prototypes)
    num_classes = prototypes.shape[0]
    check_choice("similarity", similarity, SIMILARITIES)
    temperature = read_temperature(temperature, features)
    check_per_class(pixels, "present", present, num_classes, boolean=True)
    chosen = choose(backend, "logits", features)
    call = LogitsCall(pixels.features, prototypes, present, similarity, temperature)
    out = logits(call, chosen)
    if features.dim() == 2:
        return rearrange(out, "1 c n -> n c")
    return out.reshape(pixels.shape[0], num_classes, *pixels.shape[1:])
