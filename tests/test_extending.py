"""The code of docs/extending.md runs: as it stands, and in stand-ins of the packages it names."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

import protocontrast
from reference.networks.output import Output
from tests.extending_blocks import (
    BLOCKS,
    DOCUMENT,
    half_ignored,
    install,
    loaded,
    run,
    scenes,
    sections,
)
from tests.reference.method_steps import advance, given, optimiser_of, step_of, toy
from tests.stand_ins import daformer, lightning, mmsegmentation, segmentation_models
from tests.two_ranks import on_two_ranks

CLASSES = 19
LONGEST = 430


def assert_trained(backbone: nn.Module) -> None:
    """A finite gradient, other than zero, has reached every parameter."""
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def assert_only_labelled(gradient: Tensor, *, upper_half: bool) -> None:
    """Image 1 has none, image 0 has some below; its upper half has none where `upper_half`."""
    assert gradient[1].abs().sum() == 0
    assert gradient[0, :, 16:].abs().sum() > 0
    assert not upper_half or gradient[0, :, :16].abs().sum() == 0


def assert_bank_saw(bank: nn.Module, classes: Tensor) -> None:
    """Classes with a label have a prototype, the others do not."""
    expected = torch.zeros(CLASSES, dtype=torch.bool)
    expected[classes[classes != 255].unique()] = True
    assert torch.equal(bank.present, expected)
    assert torch.equal(bank.prototypes.any(dim=1), expected)


def test_every_block_of_the_document_is_run_here() -> None:
    assert list(BLOCKS) == [
        "From a formula to a method",
        "Volumes",
        "Is a new loss right?",
        "Add an operator",
        "MMSegmentation",
        "segmentation-models-pytorch",
        "PyTorch Lightning",
        "DAFormer and what is built on it",
    ]
    assert len(DOCUMENT.read_text("utf-8").splitlines()) <= LONGEST


def test_the_method_of_the_document_trains() -> None:
    network = toy()
    start = [parameter.clone() for parameter in network.parameters()]
    method = run("From a formula to a method")["NearestPrototype"](given(network))
    optimiser = optimiser_of(method, network)
    for index in range(4):
        (losses,) = advance(method, network, optimiser, [step_of(network, index)])
        assert set(losses.terms) == {"source_cross_entropy", "contrast"}
        assert all(term.isfinite() and term > 0 for term in losses.terms.values())
    assert method.bank.present.any()
    assert not all(map(torch.equal, start, network.parameters()))


def test_the_step_on_volumes() -> None:
    torch.manual_seed(0)
    names = run("Volumes")
    assert_trained(names["encoder"])
    assert_trained(names["classify"])
    assert names["bicl"].source_bank.present.all()
    assert names["bicl"].target_bank.present.any()
    assert names["grid"].shape == (2, 8, 16, 16)


def test_the_comparison_of_the_document_can_fail() -> None:
    heading = "Is a new loss right?"
    known = {"torch": torch, "pc": protocontrast}
    run(heading, known)
    wrong = BLOCKS[heading][0].replace("row.logsumexp(0) - row[y]", "row.logsumexp(0) + row[y]")
    assert wrong != BLOCKS[heading][0]
    with pytest.raises(AssertionError, match="Scalars are not close"):
        exec(compile(wrong, "wrong", "exec"), dict(known))


@pytest.fixture(scope="module")
def operator() -> Iterator[dict[str, Any]]:
    """The names of the blocks, of a module that the compiler can import."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        module = loaded("Add an operator")
        install(monkeypatch, {module.__name__: module})
        yield vars(module)


def pixels_and_centres() -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, 5, generator=random, dtype=torch.float64)
    labels = torch.randint(4, (2, 4, 5), generator=random)
    labels[0, 0], features[0, :, 0] = 255, math.nan
    return features, labels, torch.randn(4, 3, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_operator_of_the_document_is_its_formula(
    operator: dict[str, Any], reduction: str
) -> None:
    features, labels, centres = pixels_and_centres()
    found = []
    for backend in ("naive", "eager", "auto"):
        leaf = features.clone().requires_grad_()
        loss = operator["centre_loss"](leaf, labels, centres, reduction=reduction, backend=backend)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        assert gradient[0, :, 0].abs().sum() == 0
        found.append((loss.detach(), gradient))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
    valid = labels != 255
    gaps = features.movedim(1, -1)[valid] - centres[labels[valid]]
    torch.testing.assert_close(found[0][0].sum(), {
        "mean": gaps.square().sum(dim=1).mean() / 2, "sum": gaps.square().sum() / 2,
        "none": gaps.square().sum() / 2,
    }[reduction])  # fmt: skip


def test_what_follows_from_the_declaration(operator: dict[str, Any]) -> None:
    features, labels, centres = pixels_and_centres()
    features = features.nan_to_num().requires_grad_()
    loss = operator["centre_loss"]

    def summed(features: Tensor, labels: Tensor) -> Tensor:
        return loss(features, labels, centres, reduction="sum")

    assert torch.autograd.gradcheck(lambda f: summed(f, labels), features)
    leaf = features.detach().flatten(2).requires_grad_()
    flat = leaf, labels.flatten(1), centres, 255
    results = torch.library.opcheck(torch.ops.mine.centre_loss.default, flat)
    assert set(results.values()) == {"SUCCESS"}
    (expected,) = torch.autograd.grad(summed(features, labels), features)
    compiled = torch.compile(summed, fullgraph=True, backend="aot_eager")(features, labels)
    torch.testing.assert_close(torch.autograd.grad(compiled, features)[0], expected)
    torch.testing.assert_close(torch.func.grad(summed)(features.detach(), labels), expected)
    (gradient,) = torch.autograd.grad(summed(features, labels), features, create_graph=True)
    with pytest.raises(RuntimeError, match="got a derivative of a gradient"):
        gradient.sum().backward()
    labels[1, 1, 1] = 4
    with pytest.raises(
        ValueError, match=r"^centre_loss: expected labels in 0\.\.3 or ignore_index"
    ):
        summed(features, labels)
    with pytest.raises(ValueError, match=r"^centre_loss: expected centres of shape \(C, D\)"):
        loss(features, labels, centres[:, :2])


def contrast_head(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, nn.Module]:
    install(monkeypatch, mmsegmentation.modules())
    torch.manual_seed(0)
    backbone = nn.Conv2d(3, 8, 4, stride=4)
    build = run("MMSegmentation")["MODELS"].module_dict["ContrastFCNHead"]
    head = build(in_channels=8, channels=12, num_classes=CLASSES, kernel_size=1, dropout_ratio=0.0)
    return head, backbone


def data_samples(labels: Tensor) -> list[mmsegmentation.SegDataSample]:
    samples = [mmsegmentation.SegDataSample() for _ in labels]
    for sample, image in zip(samples, labels, strict=True):
        sample.gt_sem_seg = mmsegmentation.PixelData(data=image[None])
    return samples


def test_the_head_of_mmsegmentation(monkeypatch: pytest.MonkeyPatch) -> None:
    head, backbone = contrast_head(monkeypatch)
    images, labels = scenes(1)
    labels = half_ignored(labels)
    images.requires_grad_()
    losses = head.loss([backbone(images)], data_samples(labels), None)
    assert set(losses) == {"loss_ce", "acc_seg", "loss_contrast"}
    assert losses["loss_contrast"] > 0
    (gradient,) = torch.autograd.grad(losses["loss_contrast"], images, retain_graph=True)
    assert_only_labelled(gradient, upper_half=True)
    loss = mmsegmentation.parse_losses(losses)
    torch.testing.assert_close(loss, losses["loss_ce"] + losses["loss_contrast"])
    loss.backward()
    assert_only_labelled(images.grad, upper_half=False)
    assert_trained(backbone)
    assert_bank_saw(head.bank, labels)
    assert {"bank.prototypes", "bank.count"} <= set(head.state_dict())


def test_a_head_without_any_label_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    head, backbone = contrast_head(monkeypatch)
    images, labels = scenes(1)
    losses = head.loss([backbone(images)], data_samples(torch.full_like(labels, 255)), None)
    mmsegmentation.parse_losses(losses).backward()
    assert losses["loss_contrast"] == 0
    assert backbone.weight.grad.abs().sum() == 0
    assert not head.bank.present.any()


def test_the_step_with_segmentation_models(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, segmentation_models.modules())
    torch.manual_seed(0)
    names = run("segmentation-models-pytorch")
    model, bicl = names["model"], names["bicl"]
    images, labels = scenes(1)
    labels = half_ignored(labels)
    target = scenes(2, shift=0.1)[0].requires_grad_()
    images.requires_grad_()
    # What the head itself would make of the same features, before its weights have moved.
    whole = F.cross_entropy(model(images.detach()), labels, ignore_index=255)
    features = [model.decoder(model.encoder(x.detach())) for x in (images, target)]
    contrast = copy.deepcopy(bicl)(features[0], labels, features[1]).loss
    torch.testing.assert_close(
        names["step"](images, labels, target), (whole + 0.1 * contrast).detach()
    )
    assert_only_labelled(images.grad, upper_half=False)
    assert target.grad.abs().sum() > 0
    assert_trained(model.encoder)
    assert_bank_saw(bicl.source_bank, labels)
    assert bicl.target_bank.present.any()
    first = bicl.source_bank.prototypes.clone()
    assert names["step"](*(x.detach() for x in (images, labels, target))).isfinite()
    assert not torch.equal(first, bicl.source_bank.prototypes)


class PatchNetwork(nn.Module):
    """Images, logits and features at stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 12, 4, stride=4)
        self.head = nn.Conv2d(12, CLASSES, 1)

    def forward(self, images: Tensor) -> Output:
        features = self.backbone(images)
        return Output(self.head(features), features)


def contrast_module() -> Any:
    torch.manual_seed(0)
    return run("PyTorch Lightning")["ContrastModule"](PatchNetwork(), CLASSES, 12)


def test_the_module_of_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lightning.modules())
    module = contrast_module()
    optimiser = module.configure_optimizers()
    images, labels = scenes(1)
    labels = half_ignored(labels)
    images.requires_grad_()
    loss = module.training_step((images, labels), 0)
    assert loss.isfinite()
    assert module.logged["contrast"] > 0
    loss.backward()
    assert_only_labelled(images.grad, upper_half=False)
    assert_trained(module.network.backbone)
    assert_bank_saw(module.bank, labels)
    optimiser.step()
    # A checkpoint holds the bank: what was loaded goes on as what was saved.
    again = contrast_module()
    again.load_state_dict(module.state_dict())
    batch = scenes(3)
    assert torch.equal(module.training_step(batch, 1), again.training_step(batch, 1))
    assert torch.equal(module.bank.prototypes, again.bank.prototypes)


def lightning_rank(rank: int) -> list[dict[str, Tensor]]:
    """The bank after two steps under DistributedDataParallel, with and without sent buffers."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        install(monkeypatch, lightning.modules())
        banks = []
        for broadcast in (True, False):
            module = contrast_module()
            # A trainer sends its step through the wrapper's forward in the same way.
            module.forward = module.training_step
            wrapped = DistributedDataParallel(module, broadcast_buffers=broadcast)
            for step in range(2):
                images, labels = scenes(step, images=4)
                part = slice(2 * rank, 2 * rank + 2)
                wrapped((images[part], labels[part]), step).backward()
            banks.append({name: value.clone() for name, value in module.bank.state_dict().items()})
    return banks


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")
@pytest.mark.filterwarnings("ignore")
def test_two_ranks_of_lightning_keep_one_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, lightning.modules())
    alone = contrast_module()
    for step in range(2):
        alone.training_step(scenes(step, images=4), step)
    for banks in zip(*on_two_ranks(lightning_rank, tmp_path), strict=True):
        for name, value in alone.bank.state_dict().items():
            assert torch.equal(banks[0][name], banks[1][name])
            torch.testing.assert_close(banks[0][name], value)


def test_the_step_of_daformer(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, daformer.modules())
    torch.manual_seed(0)
    build = run("DAFormer and what is built on it")["UDA"].module_dict["ContrastDACS"]
    method = build(model={"channels": 12, "num_classes": CLASSES}, alpha=0.9, pseudo_threshold=0.06)
    optimiser = torch.optim.SGD(method.get_model().parameters(), lr=0.1)
    images, labels = scenes(1)
    labels = half_ignored(labels)
    target = scenes(2, shift=0.1)[0]
    images.requires_grad_(), target.requires_grad_()
    data = {"img": images, "img_metas": [{}, {}], "gt_semantic_seg": labels[:, None]}
    data |= {"target_img": target, "target_img_metas": [{}, {}]}
    teacher = [parameter.clone() for parameter in method.get_ema_model().parameters()]
    for _ in range(2):
        images.grad = target.grad = None
        out = method.train_step(data, optimiser)
    logged = out["log_vars"]
    assert all(math.isfinite(value) for value in logged.values())
    assert {"decode.loss_seg", "mix.decode.loss_seg", "loss_contrast"} <= set(logged)
    assert logged["loss_contrast"] > 0
    assert_only_labelled(images.grad, upper_half=False)
    assert target.grad.abs().sum() > 0
    assert_trained(method.get_model().backbone)
    assert_bank_saw(method.bank, labels)
    moved = zip(teacher, method.get_ema_model().parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in moved)
    assert all(parameter.grad is None for parameter in method.get_ema_model().parameters())
    assert not method.get_ema_model().decode_head.dropout.training
    assert method.get_model().decode_head.dropout.training
    # The hook that reads the features is gone after each forward.
    assert not method.get_model().decode_head.fuse_layer._forward_hooks


CHECKS: list[Callable[[], None]] = [
    lambda: assert_trained(nn.Linear(2, 2)),
    lambda: assert_only_labelled(torch.ones(2, 3, 32, 32), upper_half=False),
    lambda: assert_only_labelled(torch.zeros(2, 3, 32, 32), upper_half=True),
    lambda: assert_bank_saw(protocontrast.PrototypeBank(CLASSES, 2), torch.tensor([3, 255])),
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_checks_can_fail(check: Callable[[], None]) -> None:
    with pytest.raises(AssertionError):
        check()


def test_a_block_is_found_below_its_heading() -> None:
    text = (
        "# A\n```python\nx = 1\n```\n## B\nnone\n### C\n```python\ny = 2\n```\n```python\nz\n```\n"
    )
    assert sections(text) == {"A": ["x = 1\n"], "C": ["y = 2\n", "z\n"]}
