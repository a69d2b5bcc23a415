"""The room of the Triton kernels: one file per operator, under the operator's own stem.

This file knows which operators have a kernel and whether kernels can run here; it never imports
triton, so the package works without it; nor does `compilers`, which says where they are refused.
The others are imported when a call first needs them.

`launch` runs launches or, within `recorded`, collects them to be compiled ahead of time; `configs`
holds the table of tile sizes; `meta` has the constants and `tiles` the tensors of a kernel as named
tuples; `scores`, `targets` and `operands` are device functions that the operators share, `pairs`
what the kernels of pairs share, `class_pieces` many classes in pieces; `prototypes` prepares the
prototypes and finishes their gradient; `totals` makes one number of losses. `bicl_step` is a step
of `BiCL` in one row of launches: `bank_step` moves banks and bias, `step_end` writes them.
"""

import os
from importlib.util import find_spec

OPERATORS: frozenset[str] = frozenset(
    {
        *("contrast", "logits", "class_prototypes", "transfer", "target_pass"),
        *("upsampled_cross_entropy", "pair_contrast", "distribution_contrast"),
    }
)
"""Stems of the operators that have a Triton kernel."""

AVAILABLE: bool = find_spec("triton") is not None
"""Whether triton is installed."""

INTERPRETED: bool = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run on CPU tensors, slowly; triton reads the variable when it is imported."""
