"""The head of docs/extending.md in MMSegmentation, trained and resumed by MMEngine's Runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmengine")
pytest.importorskip("mmseg")

from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.models import build_segmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

from tests.extending_blocks import half_ignored, run, scenes
from tests.integrations.patches import CLASSES, DIM, assert_equal

PLAIN = {"type": "BN", "requires_grad": True}
CROP = {"type": "SegDataPreProcessor", "size": (32, 32), "pad_val": 0, "seg_pad_val": 255}


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    register_all_modules()
    if "ContrastFCNHead" not in MODELS:
        run("MMSegmentation")


def model(**head: Any) -> dict[str, Any]:
    """A ResNet of five stages, as thin as it may be, and the head on its second map."""
    return {
        "type": "EncoderDecoder", "data_preprocessor": CROP,
        "backbone": {
            "type": "ResNetV1c", "depth": 18, "num_stages": 2, "out_indices": (0, 1),
            "strides": (1, 2), "dilations": (1, 1), "stem_channels": 8, "base_channels": 8,
            "norm_cfg": PLAIN, "style": "pytorch",
        },
        "decode_head": {
            "type": "ContrastFCNHead", "in_channels": 8, "in_index": 0, "channels": DIM,
            "num_convs": 1, "concat_input": False, "num_classes": CLASSES, "dropout_ratio": 0.0,
            "norm_cfg": PLAIN, "align_corners": False,
            "loss_decode": {"type": "CrossEntropyLoss"}, **head,
        },
        "train_cfg": {}, "test_cfg": {"mode": "whole"},
    }  # fmt: skip


def batch(images: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in labels]
    return {"inputs": list(images), "data_samples": samples}


def test_the_losses_are_those_of_the_head_and_the_contrast() -> None:
    torch.manual_seed(0)
    segmentor = build_segmentor(Config(model()))
    images, labels = scenes(1)
    labels = half_ignored(labels)
    data = segmentor.data_preprocessor(batch(images, labels), training=True)
    losses = segmentor.loss(**data)
    assert {"decode.loss_ce", "decode.acc_seg", "decode.loss_contrast"} == set(losses)
    assert losses["decode.loss_contrast"] > 0
    total, _ = segmentor.parse_losses(losses)
    torch.testing.assert_close(total, losses["decode.loss_ce"] + losses["decode.loss_contrast"])
    bank = segmentor.decode_head.bank
    known = torch.zeros(CLASSES, dtype=torch.bool)
    known[labels[labels != 255].unique()] = True
    assert torch.equal(bank.present, known)


def test_a_head_without_any_label_is_silent() -> None:
    segmentor = build_segmentor(Config(model()))
    images, labels = scenes(1)
    data = segmentor.data_preprocessor(batch(images, labels * 0 + 255), training=True)
    losses = segmentor.loss(**data)
    assert losses["decode.loss_contrast"] == 0
    assert not segmentor.decode_head.bank.present.any()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and labels as files."""
    root = tmp_path_factory.mktemp("cells")
    for kind in ("images", "labels"):
        (root / kind).mkdir()
    for number, (image, label) in enumerate(zip(*scenes(1, 16), strict=True)):
        pixels = (64 * image + 128).clamp(0, 255).byte().movedim(0, -1).numpy()
        Image.fromarray(pixels).save(root / "images" / f"{number:02d}.png")
        Image.fromarray(label.numpy().astype(np.uint8)).save(root / "labels" / f"{number:02d}.png")
    return root


def trained(folder: Path, work: Path, steps: int, load_from: Path | None = None) -> Runner:
    """Train so many steps, or on to that many from a checkpoint, and save one every 4."""
    names = [f"class {number}" for number in range(CLASSES)]
    reads = [
        {"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"},
    ]  # fmt: skip
    data = {
        "type": "BaseSegDataset", "data_root": str(folder), "pipeline": reads,
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"}, "img_suffix": ".png",
        "metainfo": {"classes": names, "palette": [[number] * 3 for number in range(CLASSES)]},
    }  # fmt: skip
    scaled = {**CROP, "mean": [128.0] * 3, "std": [64.0] * 3}
    runner = Runner.from_cfg(
        Config({
            "model": {**model(), "data_preprocessor": scaled}, "work_dir": str(work),
            "experiment_name": work.name, "default_scope": "mmseg", "log_level": "WARNING",
            "train_dataloader": {
                "batch_size": 4, "num_workers": 0, "dataset": data,
                "sampler": {"type": "InfiniteSampler", "shuffle": False},
            },
            "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": steps},
            "optim_wrapper": {
                "type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 1e-2},
            },
            "default_hooks": {"checkpoint": {
                "type": "CheckpointHook", "by_epoch": False, "interval": 4, "save_last": True,
            }},
            "randomness": {"seed": 0}, "resume": load_from is not None,
            "load_from": load_from and str(load_from),
        })
    )  # fmt: skip
    runner.train()
    return runner


def loss_of(runner: Runner) -> float:
    """On an image that was not learnt from."""
    images, labels = scenes(2, 4)
    # Files are read as BGR.
    samples = batch((64 * images.flip(1) + 128).clamp(0, 255), labels)
    segmentor = runner.model
    with torch.no_grad():
        data = segmentor.data_preprocessor(samples, training=True)
        segmentor.eval()
        logits = segmentor(**data, mode="tensor")
    wide = torch.nn.functional.interpolate(logits, labels.shape[1:], mode="bilinear")
    return float(torch.nn.functional.cross_entropy(wide, labels))


def test_the_loss_falls(folder: Path, tmp_path: Path) -> None:
    few = trained(folder, tmp_path / "few", 1)
    assert loss_of(trained(folder, tmp_path / "many", 48)) < 0.9 * loss_of(few)


def test_a_resumed_run_ends_as_one_that_never_stopped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(folder, tmp_path / "whole", 8)
    half = tmp_path / "whole" / "iter_4.pth"
    with pytest.raises(Exception, match="Weights only load failed"):
        trained(folder, tmp_path / "refused", 8, half)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    resumed = trained(folder, tmp_path / "rest", 8, half)
    assert_equal(resumed.model.state_dict(), whole.model.state_dict())
    bank = resumed.model.decode_head.bank
    assert bank.count.sum() == 2 * 16 * 8 * 8
    assert bank.prototypes.dtype == torch.float32


def test_the_contrast_of_a_daformer_trains_with_mmsegs_own_head() -> None:
    torch.manual_seed(0)
    widths = {"in_channels": [8, 16], "in_index": [0, 1], "type": "SegformerHead"}
    config = model()
    config["decode_head"] = {
        "channels": DIM, "num_classes": CLASSES, "norm_cfg": PLAIN, "align_corners": False,
        "dropout_ratio": 0.0, "loss_decode": {"type": "CrossEntropyLoss"}, **widths,
    }  # fmt: skip
    segmentor = build_segmentor(Config(config))
    layer = segmentor.decode_head.fusion_conv
    mix = run("DAFormer and what is built on it")["MixContrast"](layer, CLASSES, DIM)
    (images, labels), (mixed, guess) = scenes(1), scenes(2, shift=0.1)
    segmentor(images, mode="tensor")
    mix.see_source(labels)
    assert mix.bank.count.sum() == labels.numel() / 16
    segmentor(mixed, mode="tensor")
    trust = torch.ones(guess.shape)
    trust[0] = 0
    features = mix.features
    features.retain_grad()
    mix(guess, trust).backward()
    assert features.grad[0].abs().sum() == 0
    assert features.grad[1].abs().sum() > 0
    assert segmentor.backbone.layer1[0].conv1.weight.grad.abs().sum() > 0
