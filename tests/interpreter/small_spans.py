"""Spans over which a kernel sums made as long as they get, or as short, whatever the sizes."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def span_budget(slot_bytes: int) -> Iterator[None]:
    """0: one program sums a whole image; plenty: one per 128 pixels."""
    from protocontrast.kernels import launch

    before = launch.SLOT_BYTES, launch.SLOT_SHARES
    # A share of the features of a test would be plenty where classes are few.
    launch.SLOT_BYTES, launch.SLOT_SHARES = slot_bytes, (1 << 60, 1 << 60)
    try:
        yield
    finally:
        launch.SLOT_BYTES, launch.SLOT_SHARES = before
