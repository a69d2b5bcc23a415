"""A small CUT (Park et al., ECCV 2020): source images in the target's look, trained beside CONFETI.

The encoder sees an image at strides 2 and 4; its maps are what PatchNCE compares.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.func import functional_call

import protocontrast as pc
from reference.methods.heads import Discriminators
from reference.run.ranks import Ranks

WIDTHS: Final = (16, 24)  # Channels at strides 2 and 4; own.
PATCHES: Final = 64
"""Places of a map that PatchNCE draws, all where there are fewer; own (published: 256, of more)."""
NCE_TEMPERATURE: Final = 0.07  # Published.
EMBEDDING: Final = 32  # Channels in which places are compared; own (published: 256).
LEARNING_RATE: Final = 1e-3  # Of the discriminator's Adam; own.
_COARSEST: Final = 4


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

    D takes its own step before L is taken. Images (B, 3, H, W) have sides of at least 16.

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
        for dim in (-2, -1):
            last = images.narrow(dim, -1, 1)
            missing = -images.shape[dim] % _COARSEST
            images = torch.cat([images, last.repeat_interleave(missing, dim)], dim)
        maps = [images]
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
        judge = self.discriminator.layers
        with self.discriminator.learning():
            true, false = judge(target), judge(changed.detach())
            (0.5 * ((true - 1).square().mean() + false.square().mean())).backward()
        self.discriminator.move(ranks)
        adversarial = (judge(changed) - 1).square().mean()
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
