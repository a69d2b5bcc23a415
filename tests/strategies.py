"""What property tests draw: sizes, memory layouts, label maps and whole calls.

Everything is small numbers and names, from which tensors are built by seed, so that hypothesis can
shrink a failure to a call that fits a line.
"""

from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

NAN = float("nan")
LAYOUTS = ("contiguous", "channels_last", "strided", "sliced", "expanded")
# Repeated names are drawn more often: most calls should hold valid pixels of present classes.
LABEL_KINDS = ("mixed", "mixed", "mixed", "full", "full", "one_class", "all_ignored")
PRESENCES = ("all", "given", "implied", "all", "given", "implied", "none")
# Every integer dtype with an ignore value, some of which the dtype cannot hold.
LABEL_DTYPES = (
    (torch.uint8, 255),
    (torch.uint8, -100),
    (torch.int8, -100),
    (torch.int8, 255),
    (torch.int16, -1),
    (torch.int16, 255),
    (torch.uint16, 255),
    (torch.uint32, 255),
    (torch.uint64, 255),
    (torch.int32, -100),
    (torch.int64, 255),
    (torch.int64, -100),
    (torch.int64, 2**40),
)
FLOATS = (torch.float64, torch.float32, torch.float32, torch.bfloat16, torch.float16)

seeds = st.integers(0, 2**31 - 1)
channels = st.sampled_from([1, 2, 3, 7, 16, 33, 76])
class_counts = st.sampled_from([3, 2, 5, 19, 5, 1])
dtypes = st.sampled_from(FLOATS)
layouts = st.sampled_from(LAYOUTS)


@st.composite
def feature_shapes(draw: st.DrawFn, forms: str = "BPNV") -> tuple[int, ...]:
    """(B, D, H, W) for "B", with (Z, H, W) for "V", (B, D, P) for "P", (N, D) for "N".

    Some are without any pixel.
    """
    form = draw(st.sampled_from(forms))
    side = st.sampled_from([1, 2, 3, 5, 8, 13])
    many = draw(st.sampled_from([2, 1, 5, 66, 67, 129, 131]))
    images = draw(st.sampled_from([2, 1, 3]))
    height, width = draw(side), draw(side)
    sizes = {
        "B": (images, height, width),
        "V": (images, 2, height, width),
        "P": (images, many),
        "N": (many,),
    }[form]
    if draw(st.integers(0, 9)) == 9:
        emptied = draw(st.integers(0, len(sizes) - 1))
        sizes = tuple(0 if i == emptied else size for i, size in enumerate(sizes))
    return sizes[0], draw(channels), *sizes[1:]


def pixel_shape(features: tuple[int, ...]) -> tuple[int, ...]:
    """(B, H, W), (B, Z, H, W), (B, P) or (N,) of features of a shape."""
    return features[:1] if len(features) == 2 else (features[0], *features[2:])


def rows_of(features: Tensor) -> Tensor:
    """Features of any form as (N, D)."""
    return features if features.dim() == 2 else features.flatten(2).transpose(1, 2).flatten(0, 1)


def normal(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers, the same for one seed and shape in every dtype but for rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values in another memory layout; "expanded" repeats the first image or row.

    What surrounds a strided or sliced view is NaN, or 99, which is no class: reading it would show.
    """
    filler = NAN if tensor.is_floating_point() else 99
    if layout == "channels_last" and tensor.dim() > 1:
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "strided":
        whole = tensor.new_full([2 * n for n in tensor.shape], filler)
        view = whole[tuple(slice(None, None, 2) for _ in tensor.shape)]
        return view.copy_(tensor)
    if layout == "sliced":
        whole = tensor.new_full([n + 2 for n in tensor.shape], filler)
        view = whole[tuple(slice(1, n + 1) for n in tensor.shape)]
        return view.copy_(tensor)
    if layout == "expanded":
        return tensor[:1].expand_as(tensor) if len(tensor) else tensor
    return tensor.contiguous()


def label_map(
    seed: int,
    shape: tuple[int, ...],
    num_classes: int,
    kind: str = "mixed",
    dtype: torch.dtype = torch.int64,
    ignore_index: int = 255,
) -> Tensor:
    """Random classes; "mixed" ignores about a third where the dtype can say so."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, shape, generator=generator)
    if kind == "one_class":
        labels = torch.full(shape, num_classes - 1)
    limits = torch.iinfo(dtype)
    if limits.min <= ignore_index <= limits.max:
        if kind == "mixed":
            dropped = torch.rand(shape, generator=generator) < 0.3
            labels = torch.where(dropped, ignore_index, labels)
        elif kind == "all_ignored":
            labels = torch.full(shape, ignore_index)
    return labels.to(dtype)


def soft_map(seed: int, shape: tuple[int, ...], num_classes: int, kind: str) -> Tensor:
    """Counts or shares of classes, (B, C, ...) or (N, C), with rows of zeros, in any dtype."""
    generator = torch.Generator().manual_seed(seed)
    full = (shape[0], num_classes, *shape[1:])
    counts = torch.randint(0, 4, full, generator=generator).float()
    if kind == "all_ignored":
        counts = torch.zeros(full)
    if kind == "mixed":
        counts = counts * (torch.rand((*full[:1], 1, *full[2:]), generator=generator) > 0.3)
    if seed % 2:
        counts = counts * torch.rand(full, generator=generator)
    return counts.to((torch.float32, torch.float64, torch.float16, torch.bfloat16)[seed % 4])


def weights(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Weights in [0, 2], about a quarter of them exactly 0."""
    generator = torch.Generator().manual_seed(seed)
    value = torch.rand(shape, generator=generator) * 2
    return torch.where(torch.rand(shape, generator=generator) < 0.25, 0, value).to(dtype)


def prototype_rows(
    seed: int, num_classes: int, depth: int, dtype: torch.dtype, presence: str
) -> tuple[Tensor, Tensor | None]:
    """Prototypes and `present`: "implied" has zero rows, "given" NaN rows of absent classes."""
    rows = normal(seed, (num_classes, depth), dtype)
    if presence == "all":
        return rows, None
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(num_classes, generator=generator) < 0.6
    if presence == "none":
        present[:] = False
    if presence == "implied":
        return torch.where(present[:, None], rows, 0), None
    return torch.where(present[:, None], rows, NAN), present


def pixel_mass(call: dict[str, Any], settings: dict[str, Any]) -> Tensor:
    """w_i sum_c t_ic cw_c of `pixel_prototype_contrast`, 0 where ignored, in the pixels' shape."""
    labels, prototypes, present = call["labels"], call["prototypes"], call["present"]
    num_classes = len(prototypes)
    share = torch.ones(num_classes, dtype=torch.float64)
    if call["class_weight"] is not None:
        share = call["class_weight"].double()
    if present is None and settings["similarity"] == "cosine":
        present = (prototypes != 0).any(dim=1)
    if present is not None and settings["absent"] == "mask":
        share = share * present
    if labels.is_floating_point():
        mass = (labels.double().movedim(1, -1) * share).sum(dim=-1)
    else:
        valid = labels.long() != settings["ignore_index"]
        mass = torch.where(valid, share[torch.where(valid, labels.long(), 0)], 0)
    return mass if call["pixel_weight"] is None else mass * call["pixel_weight"].double()


class ContrastCase(NamedTuple):
    """One call of `pixel_prototype_contrast`, small enough to print."""

    seed: int
    features_shape: tuple[int, ...]
    num_classes: int
    dtype: torch.dtype = torch.float32
    prototype_dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    label_layout: str = "contiguous"
    similarity: str = "cosine"
    temperature: float = 0.1
    absent: str = "mask"
    reduction: str = "mean"
    presence: str = "all"
    label_kind: str = "mixed"
    label_dtype: tuple[torch.dtype, int] = (torch.int64, 255)
    soft: bool = False
    class_weight: torch.dtype | None = None
    pixel_weight: torch.dtype | None = None
    zero_pixels: bool = False
    on_prototypes: bool = False
    spoilt: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What is not a tensor."""
        return {
            "similarity": self.similarity,
            "temperature": self.temperature,
            "absent": self.absent,
            "reduction": self.reduction,
            "ignore_index": self.label_dtype[1],
        }

    def tensors(self) -> dict[str, Tensor | None]:
        """The tensors by name."""
        shape = pixel_shape(self.features_shape)
        depth = self.features_shape[1]
        prototypes, present = prototype_rows(
            self.seed + 1, self.num_classes, depth, self.prototype_dtype, self.presence
        )
        if self.soft:
            labels = soft_map(self.seed + 2, shape, self.num_classes, self.label_kind)
        else:
            labels = label_map(
                self.seed + 2, shape, self.num_classes, self.label_kind, *self.label_dtype
            )
        features = normal(self.seed, self.features_shape, self.dtype)
        columns = features if features.dim() == 2 else features.movedim(1, -1)
        generator = torch.Generator().manual_seed(self.seed + 3)
        chosen = torch.rand(shape, generator=generator)
        if self.zero_pixels:
            columns[chosen < 0.2] = 0
        if self.on_prototypes:
            columns[chosen > 0.8] = torch.nan_to_num(prototypes[0]).to(self.dtype)
        drawn = {
            "features": laid_out(features, self.layout),
            "labels": laid_out(labels, self.label_layout),
            "prototypes": prototypes,
            "present": present,
            "class_weight": None,
            "pixel_weight": None,
        }
        if self.class_weight is not None:
            drawn["class_weight"] = weights(self.seed + 4, (self.num_classes,), self.class_weight)
        if self.pixel_weight is not None:
            weight = weights(self.seed + 5, shape, self.pixel_weight)
            drawn["pixel_weight"] = laid_out(weight, self.label_layout)
        if self.spoilt is not None and self.layout != "expanded":
            features = drawn["features"]
            columns = features if features.dim() == 2 else features.movedim(1, -1)
            columns[pixel_mass(drawn, self.settings) == 0] = self.spoilt
        return drawn


@st.composite
def contrast_cases(draw: st.DrawFn, **fixed: Any) -> ContrastCase:
    """Calls of any form; what is named is fixed."""
    weight_dtypes = st.sampled_from([None, torch.float32, torch.float64, torch.float16])
    similarity = fixed.get("similarity") or draw(st.sampled_from(["cosine", "dot", "euclidean"]))
    cosine = similarity == "cosine"
    dtype = fixed.get("dtype") or draw(dtypes)
    drawn = {
        "seed": draw(seeds),
        "features_shape": fixed.get("features_shape") or draw(feature_shapes()),
        "num_classes": draw(class_counts),
        "dtype": dtype,
        "prototype_dtype": draw(st.sampled_from([dtype, torch.float32])),
        "layout": draw(layouts),
        "label_layout": draw(layouts),
        "similarity": similarity,
        "temperature": draw(st.sampled_from([0.07, 0.1, 0.5, 1.0, 20.0])),
        "absent": draw(st.sampled_from(["mask", "floor"])) if cosine else "mask",
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        "presence": draw(st.sampled_from(PRESENCES)),
        "label_kind": draw(st.sampled_from(LABEL_KINDS)),
        "label_dtype": draw(st.sampled_from(LABEL_DTYPES)),
        "soft": draw(st.booleans()),
        "class_weight": draw(weight_dtypes),
        "pixel_weight": draw(weight_dtypes),
        "zero_pixels": draw(st.booleans()),
        "on_prototypes": draw(st.booleans()),
        "spoilt": draw(st.sampled_from([None, NAN, float("inf")])),
    }
    return ContrastCase(**{**drawn, **fixed})
