"""The CPU path in plain C: one file per operator, called as the eager leaves are.

This file knows which operators there are. `build` compiles the sources, `library` loads what was
built when a call first needs it, `calls` has the structs that are handed over. C knows nothing of
torch: it reads tensors in place by their address, strides and dtype.
"""

from protocontrast.native.calls import SIMILARITIES

OPERATORS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("contrast", "logits", "pair_contrast"), SIMILARITIES),
    "transfer": SIMILARITIES[:2],
    **dict.fromkeys(("class_prototypes", "target_pass", "bidirectional"), SIMILARITIES[:1]),
    "upsampled_cross_entropy": SIMILARITIES[:1],
}
"""Stems of the operators that are written in C, and the similarities that each knows."""
