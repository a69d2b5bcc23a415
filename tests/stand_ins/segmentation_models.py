"""segmentation-models-pytorch 0.6.0: a model of encoder, decoder and head."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor, nn

from tests.stand_ins.package import packaged


class Encoder(nn.Module):
    """Images, and the maps of every stage, the deepest last."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stage = nn.Conv2d(3, width, 4, stride=4)
        self.out_channels = (3, width)
        self.output_stride = 4

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, self.stage(x)]


class FPNDecoder(nn.Module):
    """The list of maps in, one map at stride 4 out."""

    def __init__(self, encoder_channels: tuple[int, ...], out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.blend = nn.Conv2d(encoder_channels[-1], out_channels, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.blend(features[-1])


class SegmentationHead(nn.Sequential):
    """Convolution, upsampling with aligned corners, activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, upsampling: int = 1
    ) -> None:
        upsample = nn.Upsample(scale_factor=upsampling, mode="bilinear", align_corners=True)
        convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        super().__init__(convolution, upsample, nn.Identity())


class FPN(nn.Module):
    """The parts by the names that every model of the package gives them."""

    def __init__(
        self,
        encoder_name: str = "resnet34",
        encoder_depth: int = 5,
        encoder_weights: str | None = "imagenet",
        decoder_pyramid_channels: int = 256,
        decoder_segmentation_channels: int = 128,
        decoder_merge_policy: str = "add",
        decoder_dropout: float = 0.2,
        decoder_interpolation: str = "nearest",
        in_channels: int = 3,
        classes: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = FPNDecoder(self.encoder.out_channels, decoder_segmentation_channels)
        self.segmentation_head = SegmentationHead(
            self.decoder.out_channels, classes, kernel_size=1, upsampling=4
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.segmentation_head(self.decoder(self.encoder(x)))


def modules() -> dict[str, ModuleType]:
    """The import names of the package."""
    return packaged({"segmentation_models_pytorch": {"FPN": FPN}})
