"""Every instruction set of this processor, called by name."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from protocontrast.native import build, library

NAMES = [one.name for one in build.variants()[: library.widest() + 1]]


@contextmanager
def variant(name: str) -> Iterator[None]:
    """Calls of one variant within."""
    library.variant = [one.name for one in build.variants()].index(name)
    try:
        yield
    finally:
        library.variant = None


EVERY = pytest.mark.parametrize("instruction_set", NAMES, indirect=True)
"""A test runs on each; others run on the widest."""
