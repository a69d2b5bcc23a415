"""MMSegmentation 1.2.2: a decode head, its registry, and labels as `PixelData`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.stand_ins.package import Registry, packaged


class PixelData:
    """One map of an image: `data`, here labels (1, H, W)."""

    def __init__(self, *, metainfo: dict[str, Any] | None = None, data: Tensor) -> None:
        self.metainfo = metainfo or {}
        self.data = data


class SegDataSample:
    """What is known about an image: `gt_sem_seg`."""

    gt_sem_seg: PixelData


class FCNHead(nn.Module):
    """Convolutions, then `conv_seg`; the loss is taken at the labels' size."""

    def __init__(
        self,
        num_convs: int = 2,
        kernel_size: int = 3,
        concat_input: bool = True,
        dilation: int = 1,
        *,
        in_channels: int,
        channels: int,
        num_classes: int,
        dropout_ratio: float = 0.1,
        in_index: int = -1,
        ignore_index: int = 255,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.in_index, self.channels, self.num_classes = in_index, channels, num_classes
        self.ignore_index, self.align_corners = ignore_index, align_corners
        widths = [in_channels] + [channels] * num_convs
        padding = kernel_size // 2 * dilation
        self.convs = nn.Sequential(
            *(
                nn.Conv2d(a, b, kernel_size, padding=padding, dilation=dilation)
                for a, b in itertools.pairwise(widths)
            )
        )
        self.dropout = nn.Dropout2d(dropout_ratio) if dropout_ratio > 0 else None
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.convs(inputs[self.in_index])

    def cls_seg(self, feat: Tensor) -> Tensor:
        return self.conv_seg(feat if self.dropout is None else self.dropout(feat))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.cls_seg(self._forward_feature(inputs))

    def loss(
        self, inputs: Sequence[Tensor], batch_data_samples: list[SegDataSample], train_cfg: Any
    ) -> dict[str, Tensor]:
        return self.loss_by_feat(self.forward(inputs), batch_data_samples)

    def _stack_batch_gt(self, batch_data_samples: list[SegDataSample]) -> Tensor:
        return torch.stack([sample.gt_sem_seg.data for sample in batch_data_samples])

    def loss_by_feat(
        self, seg_logits: Tensor, batch_data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        logits = F.interpolate(
            seg_logits, labels.shape[1:], mode="bilinear", align_corners=self.align_corners
        )
        each = F.cross_entropy(logits, labels, ignore_index=self.ignore_index, reduction="none")
        right = (logits.argmax(dim=1) == labels).float().mean()
        return {"loss_ce": each.mean(), "acc_seg": right.detach()}


def parse_losses(losses: dict[str, Tensor]) -> Tensor:
    """Sum what has "loss" in its name, as MMEngine's `BaseModel` does."""
    return torch.stack([value.mean() for name, value in losses.items() if "loss" in name]).sum()


def modules() -> dict[str, ModuleType]:
    """The import names of the package."""
    return packaged(
        {
            "mmseg.models.decode_heads": {"FCNHead": FCNHead},
            "mmseg.registry": {"MODELS": Registry()},
        }
    )
