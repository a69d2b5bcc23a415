"""Every instruction set of this processor, called by name."""

from contextlib import AbstractContextManager
from unittest import mock

import pytest

from protocontrast.native import build, library

NAMES = [one.name for one in build.variants()[: library.widest() + 1]]


def variant(name: str) -> AbstractContextManager[object]:
    """Calls of one variant within."""
    place = [one.name for one in build.variants()].index(name)
    return mock.patch.object(library, "variant", place)


EVERY = pytest.mark.parametrize("instruction_set", NAMES, indirect=True)
"""A test runs on each; others run on the widest."""
