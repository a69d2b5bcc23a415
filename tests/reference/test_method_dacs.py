"""DACS: its loss, its drawing of classes and its teacher, restated in plain torch."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from reference.data.classes import IGNORE
from reference.methods.dacs import DACS, cells, weighted_cross_entropy
from reference.methods.mean_teacher import mean_teacher
from reference.methods.proda import ProDA
from reference.training.losses import cell_labels
from tests.reference.given_outputs import DIM, example
from tests.reference.test_method_blda import step_of
from tests.strategies import label_map, normal


def test_the_mixed_loss_is_a_mean_over_all_pixels_in_value_and_gradient() -> None:
    logits = normal(0, (2, 5, 4, 6)).requires_grad_()
    labels, weight = label_map(1, (2, 4, 6), 5), normal(2, (2, 4, 6)).abs()
    assert (labels == IGNORE).any()
    total = torch.zeros((), dtype=torch.float64)
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(6)):
        if labels[b, i, j] != IGNORE:
            row = logits[b, :, i, j]
            total = total + weight[b, i, j] * (row.logsumexp(0) - row[labels[b, i, j]])
    restated, found = total / labels.numel(), weighted_cross_entropy(logits, labels, weight)
    torch.testing.assert_close(found, restated)
    ours, theirs = (torch.autograd.grad(one, logits)[0] for one in (found, restated))
    torch.testing.assert_close(ours, theirs)
    nothing = weighted_cross_entropy(logits, torch.full_like(labels, IGNORE), weight)
    assert nothing == 0
    assert not torch.autograd.grad(nothing, logits)[0].any()


def test_the_losses_of_a_step_are_those_of_the_release() -> None:
    method = DACS()
    step = step_of(method)
    done, seen = method(step), method.seen(step)
    source = F.cross_entropy(
        step.network(step.source.images).logits, step.source_labels, ignore_index=IGNORE
    )
    share = method.teacher(step.target_batch.images).logits.softmax(dim=1).amax(dim=1) >= 0.968
    weight = torch.where(seen.from_source, 1.0, share.float().mean())
    each = F.cross_entropy(
        step.network(seen.mixed_images).logits, cell_labels(seen.mixed_labels),
        ignore_index=IGNORE, reduction="none",
    )  # fmt: skip
    expected = {
        "source_cross_entropy": source, "mixed_cross_entropy": (cells(weight) * each).mean()
    }  # fmt: skip
    torch.testing.assert_close(done.losses, expected)


def test_unlabelled_pixels_are_drawn_as_one_class_more_of_their_own_image() -> None:
    method = DACS()
    step = step_of(method)
    known = step.image_labels
    third = known.shape[-1] // 3
    known = torch.full_like(known, IGNORE)
    known[0, :, :third], known[0, :, third : 2 * third] = 3, 7
    known[1] = 5
    drawn = set()
    for seed in range(12):
        one = replace(step, source=replace(step.source, labels=known), seed=seed)
        seen = method.seen(one)
        assert seen.from_source[1].all()
        pasted = seen.from_source[0]
        classes = known[0][pasted].unique().tolist()
        drawn.add(tuple(classes))
        # Two of three: half of them, rounded up.
        assert len(classes) == 2
        assert torch.equal(pasted, torch.isin(known[0], torch.tensor(classes)))
        assert torch.equal(seen.mixed_labels[0][pasted], known[0][pasted])
        assert (seen.mixed_labels[0][~pasted] < IGNORE).all()
    assert drawn == {(3, 7), (3, IGNORE), (7, IGNORE)}


def test_the_teacher_is_a_plain_average_until_its_momentum_is_reached() -> None:
    student = torch.nn.Linear(2, 1)
    teacher, expected = mean_teacher(student), None
    for step in range(120):
        with torch.no_grad():
            student.weight.fill_(float(step**2 % 7))
        teacher.update_parameters(student)
        kept = min(1 - 1 / (step + 1), 0.99)
        value = student.weight[0, 0].double()
        expected = value if expected is None else kept * expected + (1 - kept) * value
        torch.testing.assert_close(
            teacher.module.weight[0, 0].double(), expected, rtol=1e-5, atol=0
        )
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_a_teacher_without_a_ramp_keeps_its_momentum_from_the_first_step() -> None:
    student = torch.nn.Linear(2, 1)
    teacher = mean_teacher(student, ramp=False)
    before = student.weight.clone()
    with torch.no_grad():
        student.weight.add_(1)
    teacher.update_parameters(student)
    torch.testing.assert_close(teacher.module.weight, before + 0.01)
    case = example(0)
    method = ProDA(DIM).double()
    method.begin(case.start)
    assert method.teacher.n_averaged == 1


def test_a_teacher_goes_on_as_it_was_after_loading() -> None:
    student = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    first, second = mean_teacher(student), mean_teacher(student)
    for step in range(5):
        with torch.no_grad():
            student[0].weight.fill_(step)
            student[1].num_batches_tracked.fill_(step)
        if step == 3:
            second.load_state_dict(first.state_dict())
        for teacher in (first, second) if step >= 3 else (first,):
            teacher.update_parameters(student)
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    assert first.module[1].num_batches_tracked == 4
