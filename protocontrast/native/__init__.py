"""The CPU path in plain C: one file per operator, called as the eager leaves are.

This file knows which operators there are. `build` compiles the sources, `library` loads what was
built when a call first needs it, `calls` has the structs that are handed over. C knows nothing of
torch: it reads tensors in place by their address, strides and dtype.
"""

OPERATORS: frozenset[str] = frozenset(
    {
        *("contrast", "class_prototypes", "logits", "pair_contrast", "transfer", "target_pass"),
        *("bidirectional", "upsampled_cross_entropy"),
    }
)
"""Stems of the operators that are written in C."""

SIMILARITIES = ("cosine", "dot")
"""The similarities that these know."""
