"""Modules with state as tests make and move them: by the text that they show themselves as."""

from typing import Any

import torch
from torch import Tensor

import protocontrast as pc
from protocontrast import BiCL, DomainBias, PrototypeBank, class_prototypes
from tests import bicl_steps

BOOL, INT, FLOAT, DOUBLE = torch.bool, torch.int64, torch.float32, torch.float64
BANK = {
    "prototypes": FLOAT, "count": DOUBLE, "present": BOOL, "skipped": INT,
    "pending_sum": DOUBLE, "pending_count": DOUBLE,
}  # fmt: skip
BIAS = {"bias": FLOAT, "present": BOOL, "count": INT}
TABLES = {
    front + name: FLOAT for front in ("", "anchor_") for name in ("weight", "mean", "variance")
}
BANK_OF_BICL = "PrototypeBank(5, 4, momentum=0.7, rule='ema', normalize=False)"
BICL = f"""BiCL(
  temperature=0.2, threshold=0.55, measure='confidence', prototypes='bank', \
bank_update='before', pairwise=False, calibrate=True, absent='mask', weights=(1.0, 1.0), \
balance='pixel', ignore_index=255, validate=False, backend='auto'
  (source_bank): {BANK_OF_BICL}
  (target_bank): {BANK_OF_BICL}
  (domain_bias): DomainBias(5, 4, momentum=0.5, warmup='zero')
)"""
# How a module shows itself, which is how it is made, and what it saves.
STATES: dict[str, dict[str, torch.dtype]] = {
    "PrototypeBank(3, 4, momentum=0.9, rule='cumulative', normalize='features')": BANK,
    "PrototypeBank(3, 4, momentum=0.9, rule='ema', normalize=False, variance=True)": {
        **BANK, "variance": FLOAT, "pending_square": DOUBLE,
    },
    "DomainBias(3, 4, momentum=0.9, warmup='copy')": BIAS,
    "ClassQueue(3, 5, 4)": {"keys": FLOAT, "count": INT, "skipped": INT},
    "ClassThresholds(3, share=0.3, cap=0.9, image_share=0.0, momentum=0.9)": {"mass": DOUBLE},
    "LogitBalance(3, 2, momentum=0.8, ramp=1500, strength=0.1, pixels=5, seed=0)": {
        **TABLES, **dict.fromkeys(("count", "latest", "step"), INT),
    },
    BICL: {
        **{f"{side}_bank.{name}": dtype for side in ("source", "target")
           for name, dtype in BANK.items()},
        **{f"domain_bias.{name}": dtype for name, dtype in BIAS.items()},
    },
    **{f"BiCL({settings})": {} for settings in ("bank_update='after'", "prototypes='batch'")},
}  # fmt: skip


def made(text: str) -> Any:
    if text == BICL:
        return bicl_steps.made()
    return eval(text.replace("BiCL(", "made("), {**vars(pc), "made": bicl_steps.made})


def batch(seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(30, 4, generator=random, dtype=torch.float32)
    return features, torch.randint(0, 3, (30,), generator=random)


def moved(module: Any, seed: int) -> list[Tensor]:
    """One step of a module, and what it returns."""
    (features, labels), domain = batch(seed), ("source", "target")[seed % 2]
    if isinstance(module, BiCL):
        out, gradients = bicl_steps.run(module, seed)
        return [*out, *gradients]
    if isinstance(module, PrototypeBank):
        take = pc.class_prototypes if module.variance is None else pc.class_statistics
        module.accumulate(take(*batch(seed + 50), 3))
        return [
            *module.update_from(take(features, labels, 3)),
            *(module.commit() if seed > 3 else ()),
        ]
    if isinstance(module, DomainBias):
        means = [class_prototypes(*batch(other), 3).mean for other in (seed + 50, seed)]
        module.update(*means, torch.tensor([True, seed % 2 == 0, True]))
        return []
    if isinstance(module, pc.ClassQueue):
        module.push(features, labels, per_class=2)
        return [*module.read()]
    if isinstance(module, pc.ClassThresholds):
        module.update(features[:, :3].softmax(dim=1))
        return [module.thresholds()]
    module.update(features[:, :3], labels, domain=domain)
    return [module(features[:, :3], labels, domain=domain)]


def warm(text: str, steps: int = 1) -> Any:
    """A module that has taken some steps."""
    module = made(text)
    for seed in range(steps):
        moved(module, seed)
    return module
