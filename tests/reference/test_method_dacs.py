"""DACS: its loss, its drawing of classes and its teacher, restated in plain torch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import protocontrast as pc
from reference.data.classes import IGNORE
from reference.methods import build
from reference.methods.teachers import MeanTeacher
from reference.settings import AdaptationStage, Contrast
from tests.reference.method_steps import begun, given, step_of, toy


def test_the_losses_of_a_step_are_those_of_the_release() -> None:
    network = toy()
    method, step = begun("dacs", network), step_of(network, 0)
    done, seen = method(step), method.mixture(step)
    size = step.source_labels.shape[1:]

    def upsampled(logits: torch.Tensor) -> torch.Tensor:
        return F.interpolate(logits, size, mode="bilinear")

    logits = upsampled(network(step.source.images).logits)
    source = F.cross_entropy(logits, step.source_labels, ignore_index=IGNORE)
    sure = upsampled(method.teacher(step.target_batch.images).logits).softmax(dim=1)
    assert torch.equal(done.labels, sure.argmax(dim=1))
    weight = torch.where(seen.from_source, 1.0, (sure.amax(dim=1) >= 0.968).float().mean())
    logits = upsampled(network(seen.mixed_images).logits)
    each = F.cross_entropy(logits, seen.mixed_labels, ignore_index=IGNORE, reduction="none")
    assert (seen.mixed_labels == IGNORE).any() and seen.from_source.any()
    expected = {"source_cross_entropy": source, "mixed_cross_entropy": (weight * each).mean()}
    torch.testing.assert_close(done.terms, expected)


def test_unlabelled_pixels_are_drawn_as_one_class_more_of_their_own_image() -> None:
    network = toy(19)
    method, step = begun("dacs", network), step_of(network, 0)
    known = torch.full_like(step.source_labels, IGNORE)
    third = known.shape[-1] // 3
    known[0, :, :third], known[0, :, third : 2 * third], known[1] = 3, 7, 5
    sets = set()
    for seed in range(24):
        seen = method.mixture(replace(step, source=step.source._replace(labels=known), seed=seed))
        assert seen.from_source[1].all()
        pasted = seen.from_source[0]
        classes = known[0][pasted].unique().tolist()
        sets.add(tuple(classes))
        # Two of three: half of them, rounded up.
        assert len(classes) == 2
        assert torch.equal(pasted, torch.isin(known[0], torch.tensor(classes)))
        assert torch.equal(seen.mixed_labels[0][pasted], known[0][pasted])
        assert (seen.mixed_labels[0][~pasted] < IGNORE).all()
    assert sets == {(3, 7), (3, IGNORE), (7, IGNORE)}


@pytest.mark.parametrize("ramp", [True, False])
def test_a_teacher_is_a_plain_average_until_its_momentum_is_reached(ramp: bool) -> None:
    student = nn.Linear(2, 1)
    nn.init.ones_(student.weight)
    teacher = MeanTeacher(student, ramp=ramp)
    expected = torch.ones((), dtype=torch.float64)
    for step in range(120):
        nn.init.constant_(student.weight, float(step**2 % 7))
        teacher.update_parameters(student)
        old = min(1 - 1 / (step + 1), 0.99) if ramp else 0.99
        expected = old * expected + (1 - old) * student.weight[0, 0].detach().double()
        now = teacher.module.weight[0, 0].double()
        torch.testing.assert_close(now, expected, rtol=1e-5, atol=0)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_a_teacher_stays_in_evaluation_mode_and_follows_statistics() -> None:
    student = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5))
    teacher = nn.ModuleList([MeanTeacher(student)]).train()[0]
    student(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)) + 3)
    teacher.update_parameters(student)
    assert not any(module.training for module in teacher.modules())
    assert torch.equal(teacher.module[0].running_mean, student[0].running_mean)
    assert teacher.module[0].num_batches_tracked == 1


def test_bicl_on_dacs_has_the_settings_of_the_run_and_the_teachers_sure_labels() -> None:
    network = toy()
    contrast = Contrast(target_to_source=0.4, source_to_target=0.0, threshold=0.1)
    method = build("bicl_dacs", given(network, stage=AdaptationStage(contrast=contrast)))
    step = step_of(network, 0)
    by_hand = pc.BiCL(3, 8, threshold=0.1, bias_momentum=0.997, normalize="features")
    with torch.no_grad():
        # Sure in about half of the pixels.
        network.head.weight.mul_(40)
        method.teacher.update_parameters(network)
    done, seen = method(step), method.mixture(step)
    labels = torch.where(seen.sure.amax(dim=1) >= 0.968, seen.labels, IGNORE)
    assert 0.1 < (labels == IGNORE).float().mean() < 0.9
    target = network(step.target_batch.images).features
    pulled = by_hand(seen.source.features, step.source_labels, target, labels)
    torch.testing.assert_close(done.terms["target_to_source"], 0.4 * pulled.target_to_source)
    assert done.terms["source_to_target"] == 0
    assert method.contrast.threshold == 0.1
