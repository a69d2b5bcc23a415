"""The room of the Triton kernels: one file per operator, under the operator's own stem.

No operator has a kernel yet: CUDA tensors run on the eager path.
"""

OPERATORS: frozenset[str] = frozenset()
"""Stems of the operators that have a Triton kernel."""
