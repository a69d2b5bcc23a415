"""Contrast between pairs of pixels: `pair_contrast`."""

from torch import Tensor

from protocontrast.calls import PairContrastCall
from protocontrast.checks import (
    check_device,
    check_floating,
    check_integer,
    check_no_grad,
    public,
    sentence,
)
from protocontrast.functional.pixels import check_pixelwise, read_features
from protocontrast.functional.settings import (
    Backend,
    Denominator,
    PairSettings,
    Reduction,
    Similarity,
    placed_temperature,
)
from protocontrast.ops.backend import choose
from protocontrast.ops.pair_contrast import pair_contrast as contrasted


def _check_rows(argument: str, rows: Tensor, anchors: Tensor) -> None:
    """Rows (K, D) with the anchors' D, on their device."""
    check_floating(argument, rows)
    shape, channels = tuple(rows.shape), anchors.shape[1]
    if len(shape) != 2 or shape[1] != channels:
        requirement = f"of shape (K, D) with D = {channels} as in anchors {tuple(anchors.shape)}"
        raise ValueError(sentence(argument, requirement, shape))
    check_device(argument, rows, anchors, "anchors")


def _read_labels(argument: str, labels: Tensor, of: str, rows: Tensor) -> Tensor:
    """One class per row, int64."""
    check_integer(argument, labels)
    one_hot = labels.shape[1] if labels.dim() == 2 else None
    check_pixelwise(read_features(rows, of), argument, labels, one_hot)
    return labels.long()


def _read_negatives(
    negatives: Tensor | None, labels: Tensor | None, anchors: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Both or neither."""
    if negatives is None and labels is None:
        return None, None
    if negatives is None or labels is None:
        given, missing = "negatives", "negative_labels"
        if negatives is None:
            given, missing = missing, given
        raise ValueError(sentence(missing, f"beside {given}", "None"))
    _check_rows("negatives", negatives, anchors)
    return negatives, _read_labels("negative_labels", labels, "negatives", negatives)


@public
def pair_contrast(
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor,
    key_labels: Tensor,
    *,
    negatives: Tensor | None = None,
    negative_labels: Tensor | None = None,
    anchor_weight: Tensor | None = None,
    similarity: Similarity = "cosine",
    temperature: float | Tensor = 0.1,
    denominator: Denominator = "negatives",
    exclude_self: bool = False,
    ignore_index: int = 255,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """Contrast of every anchor with single pixels: those of its own class against all others.

    With s_ij = sim(a_i, k_j) / temperature, positives P_i (keys of the anchor's class) and
    negatives N_i (keys, or `negatives`, of another class),

        loss_i = w_i / |P_i| sum_{p in P_i} -log( e^{s_ip} / (e^{s_ip} + sum_{n in N_i} e^{s_in}) ),

    and with denominator="all" every positive stands in each sum, as in SupCon:

        loss_i = w_i / |P_i| sum_{p in P_i} -log( e^{s_ip} / sum_{j in P_i or N_i} e^{s_ij} ).

    Keys are streamed: nothing of the size A x K is ever held, in either direction. Cases of it:

        PiPa, ContrastiveSeg: pair_contrast(rows, labels, rows, labels, exclude_self=True);
        a bank of pixels: keys and key_labels are the bank's;
        PatchNCE: one image's rows, labels torch.arange(A) on both sides, `ignore_index=-1`,
            temperature 0.07;
        BankCL of SePiCo: the means of each class's rows as `negatives` (the mean of products is the
        product with the mean), similarity="dot", temperature 100.

    Args:
        anchors: pixels that are contrasted, rows of any stride.
        anchor_labels: any integer names a class; `ignore_index` is none.
        keys: pixels that anchors are pulled to and pushed from, such as a bank or the anchors.
        key_labels: classes of the keys; an ignored key takes no part.
        negatives: rows to be pushed from instead of keys; keys are then positives only.
        negative_labels: classes of the negatives.
        anchor_weight: w_i, any floating dtype. 0 ignores the anchor.
        similarity: "cosine" in [-1, 1], "dot", or "euclidean" (minus the distance, whose
            gradient is 0 at distance 0).
        temperature: divides the similarity, > 0: a number, for each of which `torch.compile` has
            its program, or a tensor (), which may be annealed within one, or learnt. Copies of the
            rows are then held, at unit length under "cosine"; pairs never are.
        denominator: "negatives" or "all", as above.
        exclude_self: key i is anchor i itself, and no positive of its own. It is to be asked for:
            else anchors that are the keys, too, are each a positive of their own.
        ignore_index: label of rows without a class. Other libraries number rows from 0: 255 is then
            the 256th, so name another one.
        reduction: "mean" divides by the summed weights of the anchors that count, "sum", or "none".
        backend: "auto", or an implementation by name, which then never falls back.

    Shape:
        anchors (A, D); anchor_labels, anchor_weight (A,); keys (K, D); key_labels (K,);
        negatives (M, D); negative_labels (M,). Result () for "mean" and "sum", else (A,).

    Returns:
        Loss in nats, float32 (float64 where a row is float64). An anchor that is ignored or has no
        positive does not count: exactly 0 with gradient 0, even where it holds NaN; without
        negatives the loss is 0. With no anchor that counts it is exactly 0 with zero, connected
        gradients. A row of zero length has cosine 0 to everything and gradient 0. Gradients go to
        anchors, keys, negatives and a temperature where they require it, once: differentiating them
        again raises.
        Keys are read again in backward, so move a bank afterwards; torch raises if it has moved.

    Raises:
        ValueError: shapes, devices or settings disagree.
        TypeError: a wrong dtype, or a gradient asked for weights.

    Source:
        Wang et al., ICCV 2021, arXiv 2101.11939; Chen et al., ACM MM 2023, arXiv 2211.07609; for
        "all" Khosla et al., NeurIPS 2020, arXiv 2004.11362; (M17) of docs/pairs.md.

    Example:
        >>> import torch
        >>> rows, labels = torch.eye(3)[[0, 0, 1]], torch.tensor([4, 4, 7])
        >>> loss = pair_contrast(rows, labels, rows, labels, temperature=1.0, exclude_self=True)
        >>> f"{loss.item():.4f}"  # log(1 + e^(0 - 1)); the third has no positive
        '0.3133'
    """
    check_floating("anchors", anchors)
    if anchors.dim() != 2 or anchors.shape[1] == 0:
        requirement = "of shape (A, D) with at least one channel"
        hint = "features (B, D, H, W) are rows as features.movedim(1, -1).flatten(0, -2)."
        raise ValueError(sentence("anchors", requirement, tuple(anchors.shape), hint))
    _check_rows("keys", keys, anchors)
    own_labels = _read_labels("anchor_labels", anchor_labels, "anchors", anchors)
    other_labels = _read_labels("key_labels", key_labels, "keys", keys)
    negatives, negative_labels = _read_negatives(negatives, negative_labels, anchors)
    if anchor_weight is not None:
        check_floating("anchor_weight", anchor_weight)
        check_no_grad("anchor_weight", anchor_weight, "anchors, keys and negatives")
        check_pixelwise(read_features(anchors, "anchors"), "anchor_weight", anchor_weight)
    settings = PairSettings(
        similarity, temperature, denominator, exclude_self, ignore_index, reduction, backend
    )
    if exclude_self and keys.shape[0] != anchors.shape[0]:
        requirement = f"to be the {anchors.shape[0]} anchors with exclude_self=True"
        hint = "key i must be anchor i."
        raise ValueError(sentence("keys", requirement, f"{keys.shape[0]} rows", hint))
    call = PairContrastCall(
        anchors, own_labels, keys, other_labels, negatives, negative_labels, anchor_weight,
        settings.similarity, placed_temperature(settings.temperature, anchors, "anchors"),
        settings.denominator == "all", bool(settings.exclude_self), settings.ignore_index,
    )  # fmt: skip
    return contrasted(call, settings.reduction, choose(settings.backend, "pair_contrast", anchors))
