"""Spans over which a kernel sums made as long as they get, or as short, whatever the sizes."""

from contextlib import AbstractContextManager
from unittest import mock


def span_budget(slot_bytes: int) -> AbstractContextManager[object]:
    """0: one program sums a whole image; plenty: one per 128 pixels."""
    from protocontrast.kernels import launch

    # A share of the features of a test would be plenty where classes are few.
    shares = 1 << 60, 1 << 60
    return mock.patch.multiple(launch, SLOT_BYTES=slot_bytes, SLOT_SHARES=shares)
