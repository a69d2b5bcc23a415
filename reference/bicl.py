"""BiCL (Lee et al., ECCV 2022), the loss of one step, one line per equation.

    L = CE(P_s, y_s) + w_F CE(P_t, y_F) + w_S H(P_s) + w_E H(P_t)
        + l_1 L(t -> rho_S) + l_2 L(s -> rho_T)

`protocontrast.BiCL` holds prototypes and domain bias, labels the target and computes both
contrasts (docs/maths.md). y_F are the static labels of the round; inside the contrast they win over
dynamic ones, which `reference.dynamic_labels` makes where more is asked of them.
"""

import math
from collections.abc import Mapping

from torch import Tensor, nn

import protocontrast as pc
from reference.contrast_shares import contrast_shares
from reference.dynamic_labels import DynamicLabels, labels_outside
from reference.method import Given, Losses, Method, Step
from reference.networks.output import Output, Segmenter
from reference.run.ranks import Ranks
from reference.settings import Contrast


class BiCL(Method):
    """Every ingredient has a weight or a switch in `reference.settings`; off is not computed.

    Source: Lee et al., ECCV 2022, arXiv 2207.10892; (M1) to (M16) of docs/maths.md.
    """

    def __init__(self, given: Given) -> None:
        super().__init__()
        self.stage = stage = given.stage
        self.uses_static = stage.uses_static
        self.uses_target = stage.contrasts or bool(stage.entropy_weight) or stage.uses_static
        self.contrast: pc.BiCL | None = None
        self.dynamic: DynamicLabels | None = None
        self.projected: nn.Module = nn.Identity()
        if stage.contrasts:
            self.contrast = contrast(stage.contrast, given.num_classes, given.dim)
            if stage.contrast.conditional:
                self.dynamic = labels_outside(given, self.contrast)
            if stage.contrast.projection:
                from reference.methods.heads import Projector

                self.projected = Projector(given.dim, "crc", given.seed)

    def forward(self, step: Step) -> Losses:
        stage = self.stage
        source = step.see(step.source.images, "source")
        terms = {"source_cross_entropy": step.source_loss(source.logits)}
        late = step.round_index >= stage.entropy_from_round
        if stage.source_entropy_weight and late:
            terms["source_entropy"] = stage.source_entropy_weight * pc.entropy(source.logits)
        if step.target is None:
            return Losses(terms)
        target, static = step.see(step.target.images, "target"), step.target.labels
        if stage.static_weight and static is not None:
            terms["static_cross_entropy"] = stage.static_weight * step.static_loss(target.logits)
        if stage.entropy_weight and late:
            terms["entropy"] = stage.entropy_weight * pc.entropy(target.logits)
        if self.contrast is None:
            return Losses(terms, target, static)
        f_s, f_t = self.projected(source.features), self.projected(target.features)
        if self.dynamic is not None:
            static = self.dynamic(self.contrast, step, f_s, Output(target.logits, f_t))
        pulled = self.contrast(f_s, step.source_labels, f_t, static)
        to_source, to_target = contrast_shares(self.contrast, pulled, step, static)
        rise = min(1.0, (step.index + 1) / max(1, stage.contrast.warmup))
        l_1, l_2 = (rise * weight for weight in self.contrast.weights)
        if l_1:
            terms["target_to_source"] = l_1 * to_source * pulled.target_to_source
        if l_2:
            terms["source_to_target"] = l_2 * to_target * pulled.source_to_target
        return Losses(terms, target, pulled.target_labels)

    def after(self, network: Segmenter, ranks: Ranks) -> None:
        if self.dynamic is not None:
            self.dynamic.follow(network)

    def prototypes(self) -> Mapping[str, Tensor]:
        """Prototypes and bias of both domains."""
        return {} if self.contrast is None else self.contrast.state_dict()


def contrast(settings: Contrast, num_classes: int, dim: int) -> pc.BiCL:
    """Translate settings into `protocontrast.BiCL`."""
    # A threshold that no pixel reaches, where none is labelled, or all are from outside.
    inside = settings.dynamic_labels and not settings.conditional
    threshold = settings.threshold if inside else math.inf
    return pc.BiCL(
        num_classes, dim, temperature=settings.temperature, threshold=threshold,
        measure=settings.measure, momentum=settings.momentum, normalize=settings.normalize,
        bias_momentum=settings.bias_momentum, bias_warmup=settings.bias_warmup,
        prototypes=settings.prototypes, pairwise=settings.pairwise, absent=settings.absent,
        calibrate=settings.calibrate, balance=settings.balance,
        weights=(settings.target_to_source, settings.source_to_target),
    )  # fmt: skip
