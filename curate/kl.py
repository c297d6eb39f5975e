"""KL reduction: how much nearer a subset's n-grams are to a target's than the pool's are.

A diagnostic and never a judge: DSIR optimises this very quantity, so a selection by DSIR has a high one
whether or not a model trained on it is better. It also moves with the subset's size and with the smoothing
alone; read it only beside random subsets of as many n-grams.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from curate.errors import ConfigError, DataError

Smoothing = Literal["add_one", "eps"]
Counts = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def kl_reduction(
    target_counts: Counts,
    pool_counts: Counts,
    subset_counts: Counts,
    *,
    smoothing: Smoothing = "add_one",
    eps: float = 1e-8,
) -> float:
    """Return KL(p_target || p_pool) - KL(p_target || p_subset) in nats; larger is better.

    The counts are of hashed n-grams, int64[buckets] >= 0, all three alike in length. Xie et al. 2023 (arXiv
    2302.03169) define it without smoothing, where one bucket that the subset misses makes it infinite; see
    `kl_divergence` for the two ways out.

    A diagnostic, never a judge: DSIR chooses documents so as to make this large.
    """
    to_pool = kl_divergence(target_counts, pool_counts, smoothing=smoothing, eps=eps)
    return to_pool - kl_divergence(target_counts, subset_counts, smoothing=smoothing, eps=eps)


def kl_divergence(
    p_counts: Counts, q_counts: Counts, *, smoothing: Smoothing = "add_one", eps: float = 1e-8
) -> float:
    """Return KL(p || q) in nats of two vectors of counts, int64[buckets] >= 0.

    `add_one`: p and q are (count + 1) / (sum + buckets), and the result is >= 0. `eps`: p and q are
    count / sum, and the result is the sum of p * ln((p + eps) / (q + eps)); `eps` is inside the logarithm
    only, as in DSIR's weights. Summed exactly, so that the order of the buckets changes nothing.
    """
    if len(p_counts) != len(q_counts):
        lengths = f"{len(p_counts)} and {len(q_counts)}"
        raise DataError(f"expected counts over the same buckets, got {lengths}; count both with one setting")
    if smoothing == "add_one":
        p, q = _normalised(p_counts, 1), _normalised(q_counts, 1)
        return math.fsum((p * np.log(p / q)).tolist())
    if smoothing != "eps":
        raise ConfigError(f"expected smoothing 'add_one' or 'eps', got {smoothing!r}")
    if not 0 < eps < 1:
        raise ConfigError(f"expected 0 < eps < 1, got {eps}")
    p, q = _normalised(p_counts, 0), _normalised(q_counts, 0)
    return math.fsum((p * np.log((p + eps) / (q + eps))).tolist())


def _normalised(counts: Counts, added: int) -> Float64:
    if counts.ndim != 1 or len(counts) == 0 or counts.dtype.kind not in "iu" or int(counts.min()) < 0:
        raise DataError(
            f"expected integer counts >= 0 in one dimension, got {counts.dtype}{list(counts.shape)}"
        )
    total = int(counts.sum(dtype=np.int64)) + added * len(counts)
    if total == 0:
        raise DataError(
            "expected at least one n-gram, got none; smoothing 'add_one' allows that, 'eps' does not"
        )
    return (counts + float(added)) / total
