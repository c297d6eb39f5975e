"""Learning-rate schedules, as multiples of the peak rate.

    cosine    warm-up, then half a cosine down to `final` at the last step
    linear    warm-up, then a line down to `final`
    wsd       warm-up, constant, and over the last `decay` share of the steps a line down to `final` (Hu et al. 2024)
    constant  warm-up, then constant: a trunk that decayed branches leave from any saved point

Step s (from 0) of n: during w warm-up steps the rate is (s + 1) / (w + 1), so no step is taken at rate 0 and the peak is reached
right after. A decay over k steps ends with `final` after the last step, not at it: its last step still learns.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Literal

Schedule = Literal["cosine", "linear", "wsd", "constant"]


def share_of(share: float, whole: int) -> int:
    """A share of a whole as it is written, rounded up: 1.1 of 10 is 11, which floats make 12."""
    return math.ceil(Decimal(repr(float(share))) * whole)


def multiplier(
    schedule: Schedule, step: int, steps: int, *, warmup: int = 0, decay: float = 0.2, final: float = 0.0, branch: int | None = None
) -> float:
    """Return the learning rate of step `step` (0 .. steps - 1) over the peak rate, 0..1.

    `branch` is the step at which a branch left a trunk: from there the whole rest decays, and there is no second warm-up.

    >>> [round(multiplier("wsd", s, 10, decay=0.2), 2) for s in (0, 7, 8, 9)]
    [1.0, 1.0, 1.0, 0.5]
    """
    if branch is not None:
        start = branch
    elif step < warmup:
        return (step + 1) / (warmup + 1)
    elif schedule == "wsd":
        start = max(warmup, steps - share_of(decay, steps))
    else:
        start = warmup
    if schedule == "constant" or step < start:
        return 1.0
    done = (step - start) / max(1, steps - start)
    share = 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1 - done
    return final + (1 - final) * share
