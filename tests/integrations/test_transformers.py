"""The Trainer of docs/extending.md with a SegFormer whose weights are random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from transformers import SegformerConfig, SegformerForSemanticSegmentation, TrainingArguments

from tests.extending_blocks import run, scenes
from tests.integrations.patches import CLASSES, DIM, assert_equal, assert_seen

CONFIG = SegformerConfig(
    num_labels=CLASSES, decoder_hidden_size=DIM, num_encoder_blocks=2, depths=[1, 1],
    sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2],
    num_attention_heads=[1, 2], mlp_ratios=[2, 2], hidden_dropout_prob=0.0, drop_path_rate=0.0,
    attention_probs_dropout_prob=0.0, classifier_dropout_prob=0.0,
)  # fmt: skip


def examples(images: int = 16) -> list[dict[str, Any]]:
    return [{"pixel_values": x, "labels": y} for x, y in zip(*scenes(1, images), strict=True)]


def fitted(folder: Path, epochs: int, resume: Path | None = None, **more: Any) -> Any:
    arguments = TrainingArguments(
        str(folder), num_train_epochs=epochs, use_cpu=True, learning_rate=3e-3,
        lr_scheduler_type="constant", save_strategy="epoch", logging_strategy="epoch", report_to=[],
        disable_tqdm=True, **{"per_device_train_batch_size": 4, **more},
    )  # fmt: skip
    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(CONFIG)
    trainer = run("Transformers")["ContrastTrainer"](model, arguments, train_dataset=examples())
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return trainer


def test_the_loss_falls_and_the_bank_has_seen_every_batch(tmp_path: Path) -> None:
    trainer = fitted(tmp_path, epochs=8)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < 0.9 * losses[0]
    assert_seen(trainer.model.bank, images=8 * 16)
    assert not trainer.model.decode_head.classifier._forward_pre_hooks


def test_a_resumed_run_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "whole", epochs=2)
    resumed = fitted(tmp_path / "rest", epochs=2, resume=tmp_path / "whole" / "checkpoint-4")
    assert_equal(resumed.model.state_dict(), whole.model.state_dict())
    assert_seen(resumed.model.bank, images=32)


def test_under_bf16_the_bank_stays_in_float32(tmp_path: Path) -> None:
    trainer = fitted(tmp_path, epochs=1, bf16=True)
    assert_seen(trainer.model.bank, images=16)


def test_small_batches_are_averaged(tmp_path: Path) -> None:
    first = {"max_steps": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    trainer = fitted(tmp_path, 1, **first)
    (loss,) = (row["loss"] for row in trainer.state.log_history if "loss" in row)
    # The mean over four, near the entropy of six classes that are not yet told apart.
    assert 1.5 < float(loss) < 2.5


def test_evaluation_leaves_the_bank(tmp_path: Path) -> None:
    trainer = fitted(tmp_path, epochs=1)
    before = {name: value.clone() for name, value in trainer.model.bank.state_dict().items()}
    assert trainer.evaluate(examples(4))["eval_loss"] > 0
    assert_equal(trainer.model.bank.state_dict(), before)
