"""The translator: PatchNCE and the adversarial loss are CUT's, and its discriminator trains."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.methods.confeti import Translator
from reference.networks.output import seeded
from reference.run.ranks import Ranks
from tests.reference.given_outputs import assert_same
from tests.strategies import normal


def translator() -> Any:
    with seeded(0):
        return Translator()


def images(seed: int, size: tuple[int, int] = (16, 32)) -> Tensor:
    return normal(seed, (2, 3, *size), torch.float32).sigmoid()


def random() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_patch_nce_is_the_released_one() -> None:
    module = translator().double()
    shapes = ((2, 16, 8, 16), (2, 24, 4, 8))
    queries = [normal(0, shape).requires_grad_() for shape in shapes]
    keys = [normal(1, shape).requires_grad_() for shape in shapes]
    ours = module.patch_nce(queries, keys, random())
    drawing, parts = random(), []
    for head, query, key in zip(module.heads, queries, keys, strict=True):
        places = torch.randperm(query[0, 0].numel(), generator=drawing)[:64]
        one, other = (
            F.normalize(head(maps.flatten(2)[:, :, places].transpose(1, 2)), dim=2)
            for maps in (query, key)
        )
        # Per image, a place against all places of the other, its own the right one.
        scores = (one @ other.detach().transpose(1, 2) / 0.07).flatten(0, 1)
        parts.append(F.cross_entropy(scores, torch.arange(len(places)).repeat(2)))
    leaves = (*queries, *module.heads.parameters(), *keys)
    assert_same(ours, torch.stack(parts).mean(), leaves, 1e-5, 1e-9)


def test_an_image_of_any_size_is_itself_at_first_and_stays_in_range() -> None:
    for size in ((16, 32), (19, 33)):
        module, seen = translator(), images(0, size)
        changed, _ = module(seen, images(1, size), random(), Ranks())
        torch.testing.assert_close(changed, seen.clamp(1 / 510, 1 - 1 / 510), rtol=0, atol=1e-5)
        for parameter in module.decoder.parameters():
            parameter.data.copy_(normal(5, tuple(parameter.shape), torch.float32) * 3)
        changed, _ = module(seen, images(1, size), random(), Ranks())
        assert changed.min() >= 0 and changed.max() <= 1
        assert (changed - seen).abs().max() > 0.1


def test_the_loss_is_adversarial_and_patch_nce_and_leaves_the_discriminator_alone() -> None:
    module, seen = translator(), images(0)
    judge = module.discriminator.layers
    before = [parameter.clone() for parameter in judge.parameters()]
    changed, loss = module(seen, images(1), random(), Ranks())
    assert not any(map(torch.equal, before, judge.parameters()))
    likeness = module.patch_nce(module.encode(changed), module.encode(seen), random())
    expected = (judge(changed) - 1).square().mean() + likeness
    assert_same(loss, expected, [module.decoder[1].weight], 1e-5, 1e-6)
    loss.backward()
    assert all(parameter.grad is None for parameter in judge.parameters())


def test_the_discriminator_learns_to_tell_and_goes_on_as_it_was() -> None:
    module = translator()
    dark, bright = images(0) * 0.4, images(1) * 0.4 + 0.6
    for _ in range(40):
        module(dark, bright, random(), Ranks())
    judge = module.discriminator.layers
    with torch.no_grad():
        assert judge(bright).mean() > 0.75
        assert judge(dark).mean() < 0.25
    other = translator()
    other.load_state_dict(module.state_dict())
    for one in (module, other):
        one(dark, bright, random(), Ranks())
    # By the same step of Adam.
    assert all(map(torch.equal, module.parameters(), other.parameters()))
