"""Both directions of a contrast between batches, and the gradient of their own class means."""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.eager.class_prototypes import Members, class_sums
from protocontrast.eager.contrast import contrast_with_gradient
from protocontrast.eager.tiles import tiles, widened


class Domain(NamedTuple):
    """Features (B, D, P); labels (B, P) of the means; targets (B, P) or (B, C, P) of the loss."""

    features: Tensor
    labels: Tensor
    targets: Tensor

    def of(self, images: slice) -> "Domain":
        """Some of the images, as views."""
        return Domain(self.features[images], self.labels[images], self.targets[images])


class Written(NamedTuple):
    """Gradients of a domain's features, (B, D, P) and what is still to be added to them.

    `own` is that of the direction in which these pixels move. The other direction reaches a pixel
    through its class's mean: `share` (G, C, D) is the same for all pixels of a class.
    """

    own: Tensor
    share: Tensor


def bidirectional_with_gradient(
    source: Domain,
    target: Domain,
    num_classes: int,
    temperature: float,
    floor: bool,
    ignore_index: int,
    pairwise: bool,
    whole_class: int,
    wants_source: bool,
    wants_target: bool,
) -> tuple[list[Tensor], list[Written]]:
    """The losses of moving source and target pixels, and the gradients of both domains.

    The batches, or G = B pairs of images whose losses are averaged; gradients are of a single one.
    Every pixel counts alike; or every class, (M18), from `whole_class` pixels on, if that is not 0.
    """
    domains, wants = (source, target), (wants_source, wants_target)
    means, counts = [], []
    for domain in domains:
        sums, count = class_sums(
            domain.features, domain.labels, None, num_classes, False, pairwise, ignore_index
        )
        counts.append(count)
        means.append(sums / torch.where(count == 0, 1, count)[..., None])
    written = [
        Written(
            torch.empty_like(domain.features) if wanted else domain.features.new_empty(0),
            torch.zeros_like(mean),
        )
        for domain, wanted, mean in zip(domains, wants, means, strict=True)
    ]
    losses: tuple[list[Tensor], list[Tensor]] = ([], [])
    for group in range(len(means[0])):
        images = slice(group, group + 1) if pairwise else slice(None)
        present = [count[group] > 0 for count in counts]
        shared = (present[0] & present[1]).float()
        for moved, fixed in ((1, 0), (0, 1)):
            part = domains[moved].of(images)
            weight = shared
            if whole_class:
                pixels, soft = counts[moved][group], part.targets
                if soft.is_floating_point():
                    pixels = soft.sum(dim=(0, 2), dtype=pixels.dtype)
                weight = shared / pixels.clamp_min(whole_class)
            loss, _, to_means = contrast_with_gradient(
                part.features, part.targets, means[fixed][group], present[fixed], weight, None,
                "cosine", temperature, floor, ignore_index, True, wants[moved], wants[fixed],
                written[moved].own[images],
            )  # fmt: skip
            losses[moved].append(loss)
            if wants[fixed]:
                count = counts[fixed][group]
                written[fixed].share[group] = to_means / torch.where(count == 0, 1, count)[:, None]
    return [torch.stack(one).mean() for one in losses], written


def add_shares(
    written: Written, labels: Tensor, ignore_index: int, factor: float, share_factor: float
) -> Tensor:
    """factor * own + share_factor * the share of each pixel's class, in place in one pass."""
    gradient, share = written
    members = Members(gradient, labels, None, share.shape[1], ignore_index)
    share = share * share_factor if share_factor else torch.zeros_like(share)
    columns = share.to(members.key.dtype).transpose(1, 2).contiguous()
    for tile in tiles(gradient):
        column = columns[tile.image if len(columns) > 1 else 0]
        into = tile.of(gradient)
        member = members.of(tile)
        if into.dtype == member.dtype:
            into.addmm_(column, member, beta=factor)
        else:
            into.copy_(torch.addmm(widened(gradient, tile), column, member, beta=factor))
    return gradient
