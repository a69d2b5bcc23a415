"""The packages that the recipes are for, and the line that says which of them are absent."""

from importlib.util import find_spec

NAMES = (
    "accelerate", "lightning", "mmengine", "mmseg", "monai", "nbclient",
    "segmentation_models_pytorch", "timm", "torchmetrics", "transformers",
)  # fmt: skip


def missing() -> str:
    """A sentence about packages that are not installed; empty where all are."""
    absent = [name for name in NAMES if find_spec(name) is None]
    if not absent:
        return ""
    hint = "make test-integrations installs them."
    return (
        f"tests/integrations: expected {', '.join(NAMES)}, got no {', '.join(absent)}. Hint: {hint}"
    )
