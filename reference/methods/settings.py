"""Settings that methods share, and what stands here for a number of their schedules.

A schedule of 40 000 iterations becomes one of some hundred steps: what is counted in iterations is
taken as the same share of the run.
"""

from __future__ import annotations

from typing import Final

TEACHER: Final = 0.99
"""Weight of a teacher's old weights per step; DACS released 0.99 of 250 000 steps, those built on
it 0.999 of 40 000. Own for them: at the same share of a run of 600 steps they would forget within
15."""
CONFIDENT: Final = 0.968
"""Probability from which a teacher's label counts as sure; released by DACS."""
WARMUP: Final = 3000 / 40000
"""Share of the run before the contrast of SePiCo starts; published."""
PATCHES: Final = 10000 / 40000
"""Share of the run before the patch contrast of PiPa starts; published."""
