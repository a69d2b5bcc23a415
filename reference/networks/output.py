"""What every network takes and gives, so that training and evaluation need not know which it is.

A network is described in JSON, of structure only: with its state dict that is everything that a
checkpoint or a released file needs, and no code or pickle has to be trusted to read it. DeepLab and
EfficientNet are imported when the first one is built.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.data.settings import refusal, require
from reference.networks.settings import DeepLabOptions, LiteOptions, NetworkSettings, ToyOptions

if TYPE_CHECKING:
    from reference.networks.weights import WeightReport

Domain = Literal["source", "target"]


class Output(NamedTuple):
    """What a network says about a batch of images.

    Shape:
        logits (B, C, h, w); features (B, D, h, w), signed and not normalised, the place where
        prototypes live. h and w are about H and W over the network's stride.
    """

    logits: Tensor
    features: Tensor


# Scale of RGB in [0, 1], then mean and std per channel as the backbone reads them; blue first?
_COLOURS: Final = {
    # Of weights converted from Caffe, which divides by no spread.
    "caffe": (255.0, (104.00698793, 116.66876762, 122.67891434), (1.0, 1.0, 1.0), True),
    "imagenet": (1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), False),
    # Of TensorFlow's networks, EfficientNet-Lite among them.
    "half": (255.0, (127.5, 127.5, 127.5), (127.5, 127.5, 127.5), False),
    "none": (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), False),
}


class ColourNormalisation(nn.Module):
    """Bring RGB images in [0, 1] into the colours a backbone was trained on, of a kind by name.

    The numbers are buffers: they travel with the weights, and weights loaded later bring their own.
    """

    scale: Tensor
    mean: Tensor
    std: Tensor
    bgr: Tensor

    def __init__(self, kind: str) -> None:
        super().__init__()
        scale, mean, std, bgr = _COLOURS[kind]
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        # Boolean, so that averaging all buffers of a network cannot round it to another value.
        self.register_buffer("bgr", torch.tensor(bgr))

    def forward(self, images: Tensor) -> Tensor:
        """Compute ``(scale * colour - mean) / std``."""
        ordered = torch.where(self.bgr, images.flip(1), images)
        return (ordered * self.scale - self.mean) / self.std

    def kind(self) -> str:
        """Return the name of what the buffers hold now, or "custom" where no kind fits."""
        held = self.state_dict()
        for name in _COLOURS:
            expected = ColourNormalisation(name).state_dict()
            if all(torch.equal(expected[key], held[key].cpu()) for key in expected):
                return name
        return "custom"

    def describe(self) -> dict[str, Any]:
        """Return the numbers in words and figures, for people who read a model card."""
        return {
            "kind": self.kind(),
            "input": "RGB in [0, 1]",
            "channel_order": "BGR" if bool(self.bgr) else "RGB",
            "scale": float(self.scale),
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }


class Segmenter(nn.Module):
    """What every network here is: images in [0, 1] go in, an `Output` comes out.

    The colour normalisation sits in buffers and the corner convention in the state dict, so that
    saved weights cannot be evaluated with the wrong one of either.

    Shape:
        images (B, 3, H, W), float in [0, 1], RGB, all of one domain; a network with a stem per
        domain reads them with the one that is named, by default the target's.
    """

    kind: str = ""
    """Name that a description has for this class; a class without one cannot be described."""
    normalise: ColourNormalisation
    _options: Any

    def __init__(
        self, *, feature_dim: int, num_classes: int, stride: int, align_corners: bool
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim  # channels D of the features
        self.num_classes = num_classes  # channels C of the logits
        self.stride = stride  # pixels of an image per cell of the maps, on each axis
        self.align_corners = align_corners  # of the logits' upsampling, as in `F.interpolate`

    def options(self) -> dict[str, Any]:
        """Return what builds this network anew, as JSON can hold it."""
        plain = asdict(self._options).items()
        return {name: list(v) if isinstance(v, tuple) else v for name, v in plain}

    def upsampled(self, logits: Tensor, size: Sequence[int], masked: Sequence[int] = ()) -> Tensor:
        """Scale logits (B, C, h, w) bilinearly to (B, C, *size), by the corner convention.

        The logits of `masked` classes, which the source does not label, become -inf.
        """
        corners = self.align_corners
        maps = F.interpolate(logits, size=list(size), mode="bilinear", align_corners=corners)
        hidden = torch.tensor(masked, dtype=torch.int64, device=logits.device)
        return maps.index_fill(1, hidden, -torch.inf) if len(hidden) else maps

    # A Python bool in the state dict: as a buffer, reading it would make the host wait for a GPU.
    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.align_corners)

    def set_extra_state(self, state: Tensor) -> None:
        self.align_corners = bool(state)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw initial weights by the seed alone; torch's own random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def at_rest(network: nn.Module) -> Iterator[None]:
    """Keep a network in evaluation mode for a while; it is left in the mode it was in."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


# Kind -> module and class, and its options.
_KINDS: Final[Mapping[str, tuple[str, str, type[Any]]]] = {
    "toy": ("toy", "SegmentationNetwork", ToyOptions),
    "deeplab": ("deeplab", "DeepLab", DeepLabOptions),
    "lite": ("lite", "LiteNetwork", LiteOptions),
}


def _construct(kind: str, options: Any, seed: int) -> Segmenter:
    module, name, _ = _KINDS[kind]
    made = getattr(import_module(f"reference.networks.{module}"), name)
    with seeded(seed):
        network: Segmenter = made(options)
    return network


def _kind(network: Segmenter) -> str:
    # Of the class itself: a subclass is another network.
    return str(vars(type(network)).get("kind", ""))


def describe(network: Segmenter) -> dict[str, Any]:
    """Say in JSON what a network is built of, its kind and options; `build` reads it back.

    Example:
        >>> describe(build({"network": "toy", "options": {"num_classes": 5}}))["network"]
        'toy'
    """
    if _kind(network) not in _KINDS:
        known = " or ".join(name for _, name, _ in _KINDS.values())
        raise TypeError(f"describe: expected network to be {known}, got {type(network).__name__}.")
    return {"network": _kind(network), "options": network.options()}


def in_words(network: Segmenter) -> str:
    """Name what a score depends on, for the line above a table.

    Two heads go by the name DeepLab-V2, so of a DeepLab that is backbone, head and place of the
    features.
    """
    if _kind(network) != "deeplab":
        names = {"toy": "toy network", "lite": "EfficientNet-Lite0 with a pyramid"}
        name = names.get(_kind(network), type(network).__name__)
        return f"{name}, {network.feature_dim} features"
    options = network.options()
    branches = f" of {options['aspp_branches']} branches" if options["head"] == "dlv2" else ""
    return (
        f"DeepLab, backbone {options['backbone']}, head {options['head']}{branches}, "
        f"{network.feature_dim} features ({options['features']}), "
        f"colours {network.normalise.kind()}"
    )


def build(description: Mapping[str, Any], *, seed: int = 0) -> Segmenter:
    """Build the network that a description stands for, on the CPU, in training mode."""
    kind, options = description.get("network"), description.get("options")
    if not isinstance(kind, str) or kind not in _KINDS or not isinstance(options, Mapping):
        wanted = f'with "network" of {" or ".join(_KINDS)} and a table of options'
        got = f"network {kind!r} and options {type(options).__name__}"
        raise refusal("build", "a description", got, wanted, "describe(network) writes one")
    try:
        return _construct(kind, _KINDS[kind][2](**options), seed)
    except (TypeError, RuntimeError) as error:
        got = f"{dict(options)} ({str(error).splitlines()[0]})"
        hint = "describe(network) writes them; that of another version may name others"
        raise refusal("build", "options", got, "of types that fit", hint) from error


def first_network(
    settings: NetworkSettings, num_classes: int, seed: int
) -> "tuple[Segmenter, WeightReport | None]":
    """Build the network that a new run begins with, and say what became of its weights."""
    if settings.kind == "deeplab":
        from reference.networks.deeplab import first_deeplab

        return first_deeplab(settings, num_classes, seed)
    toy, weights = settings.kind == "toy", settings.weights
    require("train", "network.weights", weights, "left out with kind toy", not (toy and weights))
    options: Any = settings.toy if toy else settings.lite
    network = _construct(settings.kind, replace(options, num_classes=num_classes), seed)
    if weights is None and (toy or settings.random_weights):
        return network, None
    from reference.networks.lite import load_lite

    return network, load_lite(network, weights)
