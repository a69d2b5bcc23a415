"""DAFormer's public code, commit 438603d: MMSegmentation 0.16 with losses weighted by pixel."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from tests.stand_ins.package import Registry, packaged


class DAFormerHead(nn.Module):
    """`fuse_layer` makes the features that `conv_seg` classifies."""

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.channels, self.num_classes = channels, num_classes
        self.fuse_layer = nn.Conv2d(in_channels, channels, 1)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return self.conv_seg(self.dropout(self.fuse_layer(inputs[-1])))


class EncoderDecoder(nn.Module):
    """A segmentor: `forward_train` with labels (B, 1, H, W), `encode_decode` without."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 12, 4, stride=4)
        self.decode_head = DAFormerHead(12, channels, num_classes)

    def extract_feat(self, img: Tensor) -> list[Tensor]:
        return [self.backbone(img)]

    def encode_decode(self, img: Tensor, img_metas: list[dict[str, Any]]) -> Tensor:
        logits = self.decode_head(self.extract_feat(img))
        return F.interpolate(logits, img.shape[2:], mode="bilinear", align_corners=False)

    def forward_train(
        self,
        img: Tensor,
        img_metas: list[dict[str, Any]],
        gt_semantic_seg: Tensor,
        seg_weight: Tensor | None = None,
        return_feat: bool = False,
    ) -> dict[str, Tensor]:
        labels, logits = gt_semantic_seg.squeeze(1), self.encode_decode(img, img_metas)
        each = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
        each = each if seg_weight is None else each * seg_weight
        right = (logits.argmax(dim=1) == labels).float().mean()
        return {"decode.loss_seg": each.mean(), "decode.acc_seg": right.detach()}


class DACS(nn.Module):
    """A student, a teacher that follows it, and the step of the optimiser."""

    def __init__(self, **cfg: Any) -> None:
        super().__init__()
        self.local_iter = 0
        self.alpha, self.pseudo_threshold = cfg["alpha"], cfg["pseudo_threshold"]
        self.model = EncoderDecoder(**cfg["model"])
        self.num_classes = cfg["model"]["num_classes"]
        self.ema_model = copy.deepcopy(self.model)

    def get_model(self) -> EncoderDecoder:
        return self.model

    def get_ema_model(self) -> EncoderDecoder:
        return self.ema_model

    def _init_ema_weights(self) -> None:
        self.ema_model.requires_grad_(False).load_state_dict(self.model.state_dict())

    def _update_ema(self, iter: int) -> None:
        keep = min(1 - 1 / (iter + 1), self.alpha)
        with torch.no_grad():
            pairs = zip(self.ema_model.parameters(), self.model.parameters(), strict=True)
            for old, new in pairs:
                old.lerp_(new, 1 - keep)

    @staticmethod
    def _parse_losses(losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        means = {name: value.mean() for name, value in losses.items()}
        loss = torch.stack([value for name, value in means.items() if "loss" in name]).sum()
        return loss, {name: value.item() for name, value in {**means, "loss": loss}.items()}

    def forward(self, img: Tensor, img_metas: list[dict[str, Any]], **kwargs: Any) -> Any:
        return self.forward_train(img, img_metas, **kwargs)

    def train_step(
        self, data_batch: dict[str, Any], optimizer: Optimizer, **kwargs: Any
    ) -> dict[str, Any]:
        optimizer.zero_grad()
        log_vars = self(**data_batch)
        optimizer.step()
        log_vars.pop("loss", None)
        return {"log_vars": log_vars, "num_samples": len(data_batch["img_metas"])}


def add_prefix(inputs: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same values under prefixed names."""
    return {f"{prefix}.{name}": value for name, value in inputs.items()}


def modules() -> dict[str, ModuleType]:
    """The import names of the package."""
    return packaged(
        {
            "mmseg.core": {"add_prefix": add_prefix},
            "mmseg.models": {"UDA": Registry()},
            "mmseg.models.uda.dacs": {"DACS": DACS},
        }
    )
