"""The translator: PatchNCE and the adversarial loss are CUT's, and its discriminator trains."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reference.methods.confeti import CONFETI
from reference.methods.translator import Translator
from tests.reference.test_method_blda import step_of
from tests.strategies import normal


def translator() -> Translator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Translator()


def images(seed: int) -> Tensor:
    return normal(seed, (2, 3, 16, 32), torch.float32).sigmoid()


def random() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def weights(module: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def released_nce(queries: Tensor, keys: Tensor) -> Tensor:
    """CUT's: per image, the positive first, itself among the negatives at -10."""
    queries, keys = F.normalize(queries, dim=2), F.normalize(keys, dim=2).detach()
    positive = (queries * keys).sum(dim=2, keepdim=True)
    negative = torch.bmm(queries, keys.transpose(1, 2))
    itself = torch.eye(queries.shape[1], dtype=torch.bool)[None]
    negative = negative.masked_fill(itself, -10.0)
    logits = torch.cat([positive, negative], dim=2).flatten(0, 1) / 0.07
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def test_patch_nce_is_the_released_one() -> None:
    module = translator().double()
    shapes = ((2, 16, 8, 16), (2, 24, 4, 8))
    queries = [normal(0, shape).requires_grad_() for shape in shapes]
    keys = [normal(1, shape).requires_grad_() for shape in shapes]
    found = module.patch_nce(queries, keys, random())
    drawing, parts = random(), []
    for head, query, key in zip(module.heads, queries, keys, strict=True):
        places = torch.randperm(query[0, 0].numel(), generator=drawing)[:64]
        rows = (head(one.flatten(2)[:, :, places].transpose(1, 2)) for one in (query, key))
        parts.append(released_nce(*rows))
    expected = torch.stack(parts).mean()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    leaves = (*queries, *module.heads.parameters())
    pairs = (torch.autograd.grad(loss, leaves, retain_graph=True) for loss in (found, expected))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)
    unused = torch.autograd.grad(found, keys, allow_unused=True)
    assert unused == (None, None)


def test_an_image_is_itself_at_first_and_stays_in_range() -> None:
    module, seen = translator(), images(0)
    changed, _ = module(seen, images(1), random())
    torch.testing.assert_close(changed, seen.clamp(1 / 510, 1 - 1 / 510), rtol=0, atol=1e-5)
    with torch.no_grad():
        for parameter in module.decoder.parameters():
            parameter.copy_(normal(5, tuple(parameter.shape), torch.float32) * 3)
    changed, _ = module(seen, images(1), random())
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert (changed - seen).abs().max() > 0.1


def test_the_loss_trains_all_but_the_discriminator_which_trains_itself() -> None:
    module = translator()
    before = weights(module.discriminator)
    _, loss = module(images(0), images(1), random())
    moved = weights(module.discriminator)
    assert not torch.equal(before, moved)
    fitted = module.decoder[1]
    assert isinstance(fitted, torch.nn.Conv2d)
    kept = [parameter.grad.clone() for parameter in module.discriminator.parameters()
            if parameter.grad is not None]  # fmt: skip
    loss.backward()
    left = [parameter.grad for parameter in module.discriminator.parameters()]
    for one, other in zip(kept, left, strict=True):
        assert other is not None
        assert torch.equal(one, other)
    assert fitted.weight.grad is not None
    assert fitted.weight.grad.abs().max() > 0
    assert torch.equal(weights(module.discriminator), moved)


def test_the_loss_is_adversarial_and_patch_nce() -> None:
    module, seen = translator(), images(0)
    changed, loss = module(seen, images(1), random())
    fooled = (module.discriminator(changed) - 1).square().mean()
    likeness = module.patch_nce(module.encode(changed), module.encode(seen), random())
    torch.testing.assert_close(loss, fooled + likeness)
    leaves = tuple(module.decoder[1].parameters())
    pairs = (
        torch.autograd.grad(one, leaves, retain_graph=True) for one in (loss, fooled + likeness)
    )
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_discriminator_learns_to_tell() -> None:
    module = translator()
    dark, bright = images(0) * 0.4, images(1) * 0.4 + 0.6
    for _ in range(40):
        module(dark, bright, random())
    with torch.no_grad():
        true, false = module.discriminator(bright), module.discriminator(dark)
    assert true.mean() > 0.75
    assert false.mean() < 0.25


def test_the_loops_optimiser_does_not_take_the_discriminator() -> None:
    method = CONFETI(64)
    method(step_of(method))
    taken = {id(parameter) for parameter in method.trained()}
    assert not taken & {id(parameter) for parameter in method.translate.discriminator.parameters()}
    assert {id(parameter) for parameter in method.translate.decoder.parameters()} <= taken
    assert not taken & {id(parameter) for parameter in method.teacher.parameters()}
