"""CONFETI (Li et al., CVPRW 2023, arXiv 2306.09098): prototypes, and source in target look."""

from dataclasses import replace
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.method import Given, Losses, Step
from reference.methods.dacs import DACS, Mixture
from reference.methods.heads import Discriminators, lengthened, pixel_rows
from reference.methods.teachers import MOMENTUM, MeanTeacher
from reference.networks.output import seeded
from reference.run.ranks import Ranks

MIXED, WARMUP = 2000 / 80000, 3000 / 80000  # Shares of the run; released.
DIM: Final = 64  # Channels of the projection; own (published: 512).
STRONGEST: Final = 32  # Cells of a class that make its prototype; published, of pixels.
DRAWN: Final = 2048  # Cells of a contrast; own (released: 4096, of twice as many).
Toward = Literal["released", "uniform"]
RELEASED: Final = "released"


class CONFETI(DACS):
    """DACS + 0.5 CE(v P^T / 0.1) + 2 spread + CUT + 0.1 (u_s P^T - M(u_G) P^T)^2 + presence.

    u is a 1x1 projection, v the same at unit length: of translated source, mixed and, times q, of
    target images. CUT and similarities move the translator, all else takes its images as given.

    Args:
        ramp: average the first prototypes; False, released: m = 0.99 (there 0.999) from the start.
        zero_rows: a class that was not seen has logit 0; released. False leaves it out.
        toward: sign of the spread, see `pc.spread`.
    """

    def __init__(
        self, given: Given, *, ramp: bool = True, zero_rows: bool = False, toward: Toward = RELEASED
    ) -> None:
        super().__init__(given)
        self.zero_rows, self.toward = zero_rows, toward
        with seeded(given.seed):
            self.heads = ActivationPrototypes(given.num_classes, given.dim, ramp=ramp)
            self.translate = Translator()

    def forward(self, step: Step) -> Losses:
        """Train on translated source images, and the translator beside."""
        plain, target = step.source.images, step.target_batch.images
        styled, loss = self.translate(plain, target, step.random(), step.ranks)
        done = super().forward(replace(step, source=step.source._replace(images=styled.detach())))
        # The network as it is: its weights get no gradient.
        still = Held(step.network)
        pair = (step.see(images, "source", still).features for images in (plain, styled))
        near = self.heads.similarity(*pair)
        return replace(done, terms={**done.terms, "translation": loss, "similarity": 0.1 * near})

    def more(self, step: Step, seen: Mixture) -> dict[str, Tensor]:
        """Class presence and, after the warm-up, contrast."""
        random, warm, heads = step.random(), step.progress < WARMUP, self.heads
        source, mixed = seen.source.features, seen.mixed.features
        y = step.on_grid(seen.mixed_labels, mixed)
        pasted = step.on_grid(seen.from_source.long(), mixed).bool() if warm else None
        if step.part == 0:
            heads.follow()
        with torch.no_grad():
            taught = step.see(seen.mixed_images, by=self.teacher).features
        heads.update(taught, y, pasted, step.index)
        late, shown = step.progress > MIXED, heads.presence(source, step.source_labels)
        shown = shown + late * heads.presence(mixed, seen.mixed_labels)
        if warm:
            return {"presence": shown}
        new = step.see(step.target_batch.images).features
        near = self.contrast(source, step.on_grid(step.source_labels, source), random)
        near = near + self.contrast(mixed, y, random)
        near = near + seen.share * self.contrast(new, step.on_grid(seen.labels, new), random)
        return {"presence": shown, "contrast": near[0], "spread": near[1]}

    def contrast(self, features: Tensor, labels: Tensor, random: torch.Generator) -> Tensor:
        """0.5 contrast of the cells that are drawn, 2 spread of all; (2,)."""
        table, known = self.heads.bank.prototypes, self.heads.bank.present | self.zero_rows
        rows = pixel_rows(F.normalize(self.heads.project(features), dim=1))
        drawn, y = pc.sample_pixels(labels, DRAWN, generator=random)
        near = pc.pixel_prototype_contrast(rows[drawn], y, table, present=known, similarity="dot")
        even = pc.spread(rows, labels.flatten(), table, toward=self.toward, present=known)
        return torch.stack([0.5 * near, 2 * even])


class ActivationPrototypes(nn.Module):
    """P_c <- unit(m P_c + (1 - m) unit(sum_i a_ic u_i / sum_i a_ic)) over the 32 largest a_ic.

    u is a 1x1 projection and a = max(0, A f) the class activation, both of the teacher.

    With `ramp` m = min(1 - 1 / (n + 1), 0.99) after n steps; else m = 0.99 but for a first row.
    """

    def __init__(self, num_classes: int, dim: int, *, ramp: bool) -> None:
        super().__init__()
        self.num_classes, self.ramp = num_classes, ramp
        self.project = nn.Conv2d(dim, DIM, 1, bias=False)
        self.activate = nn.Conv2d(dim, num_classes, 1, bias=False)
        self.match = nn.Conv2d(DIM, DIM, 1)
        self.slow_project = MeanTeacher(self.project)
        self.slow_activate = MeanTeacher(self.activate)
        self.bank = pc.PrototypeBank(num_classes, DIM, momentum=MOMENTUM, normalize="prototypes")

    def presence(self, features: Tensor, labels: Tensor) -> Tensor:
        """Teach activation and features which classes images of labels (B, H, W) show."""
        counts = pc.labels_to_grid(labels, (1, 1), mode="counts", num_classes=self.num_classes)
        mean = self.activate(features).mean(dim=(2, 3), keepdim=True)
        return F.binary_cross_entropy_with_logits(mean, (counts > 0).to(mean.dtype))

    def similarity(self, source: Tensor, styled: Tensor) -> Tensor:
        """Mean (M(u_styled) P^T - u_source P^T)^2; projection and the source's side are held."""
        projected = F.conv2d(styled, self.project.weight.detach())
        apart = self.match(projected) - self.project(source).detach()
        table = self.bank.prototypes
        return pc.prototype_logits(apart, table, similarity="dot", temperature=1.0).square().mean()

    def follow(self) -> None:
        """Move the teacher's heads, once a step."""
        self.slow_project.update_parameters(self.project)
        self.slow_activate.update_parameters(self.activate)

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor, pasted: Tensor | None, step: int) -> None:
        """Move by the teacher's features (B, D, h, w); of `pasted` cells, all alike, if given."""
        scores = self.slow_activate(features).relu()
        if pasted is not None:
            labels, scores = labels.masked_fill(~pasted, IGNORE), torch.ones_like(scores)
        projected, weight = self.slow_project(features), strongest(scores, labels)
        mean, count = pc.class_prototypes(projected, labels, self.num_classes, pixel_weight=weight)
        if self.ramp:
            self.bank.momentum = min(1 - 1 / (step + 1), MOMENTUM)
        self.bank.update_from(pc.ClassPrototypes(self.bank.on_scale(mean), count))


def strongest(scores: Tensor, labels: Tensor) -> Tensor:
    """Scores (B, C, h, w) of cells' own class, but 32 of each, largest then first, 0: (B, h, w)."""
    classes = torch.arange(scores.shape[1], device=labels.device)
    same = labels.flatten() == classes[:, None]
    own = scores.gather(1, labels.masked_fill(labels >= scores.shape[1], 0)[:, None])[:, 0]
    rows = torch.where(same, own.flatten(), -1)
    first = rows.sort(dim=1, descending=True, stable=True).indices[:, :STRONGEST]
    chosen = torch.zeros_like(same).scatter_(1, first, True) & same
    return torch.where(chosen.any(dim=0).view_as(labels), own, 0)


WIDTHS: Final = (16, 24)  # Channels at strides 2 and 4; own.
PATCHES: Final = 64
"""Places of a map that PatchNCE draws, all where there are fewer; own (published: 256, of more)."""
NCE_TEMPERATURE: Final = 0.07  # Published.
EMBEDDING: Final = 32  # Channels in which places are compared; own (published: 256).
LEARNING_RATE: Final = 1e-3  # Of the discriminator's Adam; own.
_COARSEST: Final = 4
_JUDGED: Final = 16  # Least side, pixels, that the discriminator can read.


def _down(inputs: int, outputs: int, slope: float, stride: int = 2) -> nn.Sequential:
    padding = (4 - stride) // 2
    convolution = nn.Conv2d(inputs, outputs, 4, stride=stride, padding=padding, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(8, outputs), nn.LeakyReLU(slope))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        norms = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.body = nn.Sequential(first, norms[0], nn.ReLU(), second, norms[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Translator(nn.Module):
    """G(x) = sigmoid(logit(x) + change), which is x at first, with a discriminator D.

        L = mean (D(G(x)) - 1)^2 + mean over strides of PatchNCE,  D: mean (D(t) - 1)^2 + D(G(x))^2

    D takes its own step before L is taken. It sees the ends of a small image (B, 3, H, W) repeated.

    Source: Park et al., ECCV 2020, arXiv 2007.15651.
    """

    def __init__(self) -> None:
        super().__init__()
        shallow, deep = WIDTHS
        self.encoder = nn.ModuleList([_down(3, shallow, 0.0), _down(shallow, deep, 0.0)])
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, EMBEDDING))
            for width in WIDTHS
        )
        last = nn.Conv2d(deep, 3 * 4 * 4, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.decoder = nn.Sequential(_Residual(deep), last, nn.PixelShuffle(4))
        first, second = _down(3, shallow, 0.2, stride=4), _down(shallow, deep, 0.2)
        judge = nn.Sequential(first, second, nn.Conv2d(deep, 1, 4, padding=1))
        self.discriminator = Discriminators(judge, LEARNING_RATE, (0.5, 0.999))

    def encode(self, images: Tensor) -> list[Tensor]:
        """The maps at strides 2 and 4; an image that 4 does not divide goes on as it ends."""
        maps = [lengthened(images, 1, _COARSEST)]
        for layer in self.encoder:
            maps.append(layer(maps[-1]))
        return maps[1:]

    def forward(
        self, images: Tensor, target: Tensor, random: torch.Generator, ranks: Ranks
    ) -> tuple[Tensor, Tensor]:
        """Return images in the look of `target` and their loss; the discriminator learns beside."""
        maps = self.encode(images)
        height, width = images.shape[-2:]
        change = self.decoder(maps[-1])[..., :height, :width]
        changed = torch.sigmoid(torch.logit(images, eps=1 / 510) + change)
        judge, seen = self.discriminator.layers, lengthened(changed, _JUDGED)
        with self.discriminator.learning():
            true, false = judge(lengthened(target, _JUDGED)), judge(seen.detach())
            (0.5 * ((true - 1).square().mean() + false.square().mean())).backward()
        self.discriminator.move(ranks)
        adversarial = (judge(seen) - 1).square().mean()
        return changed, adversarial + self.patch_nce(self.encode(changed), maps, random)

    def patch_nce(
        self, queries: list[Tensor], keys: list[Tensor], random: torch.Generator
    ) -> Tensor:
        """Each place of a translated image against the places of the image it comes from."""
        losses = []
        for head, *maps in zip(self.heads, queries, keys, strict=True):
            cells = maps[0][0, 0].numel()
            places = torch.randperm(cells, generator=random, device=random.device)[:PATCHES]
            places = places.to(maps[0].device)
            rows = (head(one.flatten(2)[:, :, places].transpose(1, 2)) for one in maps)
            own = torch.arange(len(places), device=places.device)
            for query, key in zip(*rows, strict=True):
                losses.append(pc.pair_contrast(
                    query, own, key.detach(), own, temperature=NCE_TEMPERATURE, ignore_index=-1,
                ))  # fmt: skip
        return torch.stack(losses).mean()


class Held(nn.Module):
    """A network as it is: its images get a gradient, its weights do not."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, **options: Any) -> Any:
        weights = {name: weight.detach() for name, weight in self.network.named_parameters()}
        return functional_call(self.network, weights, (images,), options)
