"""Both directions of a contrast between batches, and the gradient of their own class means."""

from typing import NamedTuple

import torch
from torch import Tensor

from protocontrast.calls import BidirectionalCall, ClassSumsCall, ContrastCall
from protocontrast.eager.class_prototypes import Members, class_sums
from protocontrast.eager.contrast import contrast_with_gradient
from protocontrast.eager.tiles import tiles, widened


class Written(NamedTuple):
    """Gradients of a domain's features, (B, D, P) and what is still to be added to them.

    `own` is that of the direction in which these pixels move. The other direction reaches a pixel
    through its class's mean: `share` (G, C, D) is the same for all pixels of a class.
    """

    own: Tensor
    share: Tensor


def bidirectional_with_gradient(
    call: BidirectionalCall, wants: tuple[bool, bool]
) -> tuple[list[Tensor], list[Written]]:
    """The losses of moving source and target pixels, and the gradients of both domains.

    The batches, or G = B pairs of images whose losses are averaged; gradients are of a single one.
    """
    domains, pairwise = (call.source, call.target), call.pairwise
    means, counts = [], []
    for domain in domains:
        members = ClassSumsCall(
            domain.features, domain.labels, None, call.num_classes, False, pairwise,
            call.ignore_index,
        )  # fmt: skip
        sums, count = class_sums(members)
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
            if call.whole_class:
                pixels, soft = counts[moved][group], part.targets
                if soft.is_floating_point():
                    pixels = soft.sum(dim=(0, 2), dtype=pixels.dtype)
                weight = shared / pixels.clamp_min(call.whole_class)
            direction = ContrastCall(
                part.features, part.targets, means[fixed][group], present[fixed], weight, None,
                "cosine", call.temperature, call.keep_absent, call.ignore_index,
            )  # fmt: skip
            wanted = wants[moved], wants[fixed]
            into = written[moved].own[images]
            loss, _, to_means = contrast_with_gradient(direction, True, wanted, into)
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
