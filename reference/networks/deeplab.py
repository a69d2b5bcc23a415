"""DeepLab-V2: a dilated ResNet-101, a head chosen by name, and a named place for the prototypes."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from reference.networks import weights
from reference.networks.heads import GroupNormHead, SumHead
from reference.networks.output import ColourNormalisation, Domain, Output, Segmenter, seeded
from reference.networks.pretrained import check_choices
from reference.networks.resnet import ResNet
from reference.networks.settings import DeepLabOptions, NetworkSettings
from reference.networks.timm_backbone import TimmBackbone


def _backbone(options: DeepLabOptions) -> ResNet | TimmBackbone:
    name = options.backbone.removeprefix("timm/")
    if name == options.backbone:
        return ResNet(options)
    if options.stems != "shared" or options.checkpointing:
        raise ValueError(
            f'DeepLab: expected stems "shared" and no checkpointing with the backbone '
            f"{options.backbone!r}, got {options.stems!r} and {options.checkpointing}. "
            "Hint: both need a resnet."
        )
    return TimmBackbone(name, batch_norm=options.batch_norm)


def _head(options: DeepLabOptions, inputs: int) -> SumHead | GroupNormHead:
    own = "branches" if options.head == "dlv2" else "bottleneck"
    if options.features not in (own, "backbone", "projection"):
        raise ValueError(
            f'DeepLab: expected features "{own}", "backbone" or "projection" with the head '
            f"{options.head!r}, got {options.features!r}."
        )
    if options.head == "dlv2":
        return SumHead(inputs, options.num_classes, branches=options.aspp_branches)
    return GroupNormHead(inputs, options.num_classes)


class DeepLab(Segmenter):
    """A backbone at stride 8 and one of two heads.

    The maps have about 1/8 of H and W; with Caffe's rounding up, one cell more on sizes that 8
    divides.

    Source:
        Chen et al., DeepLab, arXiv 1606.00915.
    """

    kind = "deeplab"

    def __init__(self, options: DeepLabOptions | None = None) -> None:
        options = options or DeepLabOptions()
        check_choices("DeepLab", options)
        backbone = _backbone(options)
        width, dim = backbone.channels, options.projection_dim
        head = _head(options, width)
        sizes = {"backbone": width, "projection": dim}
        super().__init__(
            feature_dim=sizes.get(options.features, head.feature_dim),
            num_classes=options.num_classes,
            stride=backbone.stride,
            align_corners=options.align_corners,
        )
        self._options = options
        self.normalise = ColourNormalisation(options.normalisation)
        self.backbone = backbone
        self.head = head
        self.projection: nn.Module | None = None
        if options.features == "projection":
            first, last = nn.Conv2d(width, width // 4, 1), nn.Conv2d(width // 4, dim, 1)
            self.projection = nn.Sequential(first, nn.ReLU(inplace=True), last)

    def options(self) -> dict[str, Any]:
        """Return the options as JSON can hold them, with what loaded weights brought along."""
        kind = self.normalise.kind()
        # The buffers bring numbers of their own kind; the name only starts them.
        brought = {} if kind == "custom" else {"normalisation": kind}
        return super().options() | {"align_corners": self.align_corners} | brought

    def forward(self, images: Tensor, domain: Domain = "target") -> Output:
        """Compute logits and features of a batch of one domain."""
        deep = self.backbone(self.normalise(images), domain)
        logits, features = self.head(deep)
        if self.projection is not None:
            features = self.projection(deep)
        elif self._options.features == "backbone":
            features = deep
        return Output(logits, features)


def first_deeplab(
    settings: NetworkSettings, num_classes: int, seed: int
) -> tuple[Segmenter, weights.WeightReport | None]:
    """Build a DeepLab for a run, with the conventions of its weights; see `first_network`."""
    options = replace(settings.deeplab, num_classes=num_classes)
    if settings.weights is None:
        if not settings.random_weights:
            raise ValueError(
                "train: expected a file of pre-trained weights, got none. Hint: give "
                "--network.weights FILE (docs/data.md says where from), or "
                "--network.random-weights, which costs most of the score."
            )
        return seeded(lambda: DeepLab(options), seed), None
    path, held = settings.weights, weights.read_weights(settings.weights)
    forced = settings.family != "auto"
    family = settings.family if forced else weights.family_of(held)
    options = weights.with_conventions(options, family, path, forced=forced)
    network = seeded(lambda: DeepLab(options), seed)
    state = weights.translate(held, network)
    report = weights.fill_backbone(network, state, path, family=family)
    chosen = {name: getattr(options, name) for name in weights.FAMILIES[family]}
    return network, replace(report, set_options=chosen)
