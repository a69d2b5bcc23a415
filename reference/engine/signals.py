"""Being asked to stop: a cluster sends SIGTERM or SIGUSR1 before it takes the machine away."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

_ASKING: Final = (signal.SIGTERM, signal.SIGUSR1)


@dataclass
class Asked:
    """Whether this process was asked to stop.

    Args:
        yes: turns True once.
    """

    yes: bool = False


@contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """Take note of SIGTERM and SIGUSR1 instead of dying from them, as long as this lasts."""
    asked = Asked()

    def note(number: int, frame: FrameType | None) -> None:
        asked.yes = True

    before = {number: signal.signal(number, note) for number in _ASKING}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
