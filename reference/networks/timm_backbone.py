"""Any backbone of timm, which stays optional: it is imported when the first one is built."""

import importlib
from typing import Any

from torch import Tensor

from reference.networks.output import Domain
from reference.networks.pretrained import WithBatchNorm


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    # A torchvision that was built for another torch fails with RuntimeError, not ImportError.
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            "TimmBackbone: expected timm and torchvision to be importable, got "
            f"{type(error).__name__}: {str(error).rstrip('.')}. Hint: install "
            "protocontrast[backbones] and the torchvision that belongs to the installed torch, or "
            'choose the backbone "resnet101", which needs neither.'
        ) from error


class TimmBackbone(WithBatchNorm):
    """The last feature map of a network of timm at stride 8, with random weights."""

    def __init__(self, name: str, *, batch_norm: str = "affine_frozen") -> None:
        super().__init__(batch_norm)
        options = {"pretrained": False, "features_only": True, "output_stride": 8}
        timm = _timm()
        try:
            self.model = timm.create_model(name, **options)
        except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
            raise ValueError(
                "TimmBackbone: expected a feature network of timm at output stride 8, got "
                f"{name!r} ({str(error).rstrip('.')}). Hint: timm.list_models() lists the names."
            ) from error
        self.channels = int(self.model.feature_info.channels()[-1])
        self.stride = int(self.model.feature_info.reduction()[-1])
        self.settle_batch_norm()

    def forward(self, x: Tensor, domain: Domain = "target") -> Tensor:
        """Compute the last feature map, the same for both domains."""
        del domain
        return self.model(x)[-1]
