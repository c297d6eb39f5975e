"""KL reduction against numbers recorded from the reference's counts, and against arithmetic by hand."""

from __future__ import annotations

import hashlib
import itertools
import math
import re

import numpy as np
import pytest

from curate.errors import ConfigError, DataError
from curate.kl import kl_divergence, kl_reduction

RAW = [
    "The quick brown fox jumps over the lazy dog. The dog barks; the fox runs away.",
    "def add(a, b):\n    return a + b\n\n\ndef mul(a, b):\n    return a * b\n",
    "Theorem 1. For every n >= 0, n*(n+1)/2 is an integer. Proof: by induction on n.",
    "Caf\u00e9 M\u00dcNCHEN na\u00efve \u2014 \u4f60\u597d\uff0c\u4e16\u754c! \U0001f600 "
    "100% snake_case x_1\r\n\tdon't",
    "",
]
TARGET = [
    "def sub(a, b):\n    return a - b\n",
    "def div(a, b):\n    if b == 0:\n        raise ZeroDivisionError\n    return a / b\n",
    "for i in range(10):\n    print(add(i, i + 1))\n",
]


def counts(texts: list[str], buckets: int = 10_000) -> np.ndarray:
    """Unigrams and bigrams of lower-cased word and punctuation runs, by SHA-256 modulo buckets."""
    out = np.zeros(buckets, np.int64)
    for text in texts:
        tokens = re.findall(r"\w+|[^\w\s]+", text.lower())
        for gram in tokens + [" ".join(pair) for pair in itertools.pairwise(tokens)]:
            out[int(hashlib.sha256(gram.encode()).hexdigest(), 16) % buckets] += 1
    return out


def test_the_counts_of_the_golden_texts_are_those_recorded():
    assert (counts(RAW).sum(), np.count_nonzero(counts(RAW))) == (164, 131)
    assert (counts(TARGET).sum(), np.count_nonzero(counts(TARGET))) == (89, 65)


@pytest.mark.parametrize(
    ("subset", "to_subset", "reduction"),
    [
        ([1], 7.793532440272799, -0.2157),
        ([1, 3], 8.0253174232830, -0.4475),
        ([0, 2], 12.9564348333193, -5.3786),
        ([0, 1, 2, 3, 4], 7.577796316284485, 0.0),
    ],
)
def test_eps_smoothing_gives_the_golden_numbers(subset, to_subset, reduction):
    target, pool, chosen = counts(TARGET), counts(RAW), counts([RAW[i] for i in subset])
    assert kl_divergence(target, pool, smoothing="eps") == pytest.approx(7.577796316284485, rel=1e-12)
    assert kl_divergence(target, chosen, smoothing="eps") == pytest.approx(to_subset, rel=1e-12)
    assert kl_reduction(target, pool, chosen, smoothing="eps") == pytest.approx(reduction, abs=5e-5)


def test_add_one_agrees_with_arithmetic_by_hand():
    target, pool, subset = np.array([1, 0]), np.array([1, 3]), np.array([1, 1])
    # smoothed: target 2/3 1/3, pool 2/6 4/6, subset 1/2 1/2
    to_pool = 2 / 3 * math.log(2) + 1 / 3 * math.log(1 / 2)
    to_subset = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert kl_reduction(target, pool, subset) == pytest.approx(to_pool - to_subset, rel=1e-14)
    assert kl_reduction(target, pool, subset) == pytest.approx(0.1744160479215161, rel=1e-12)


def test_the_whole_pool_reduces_nothing_and_the_target_itself_reduces_all():
    target, pool = counts(TARGET), counts(RAW)
    assert kl_reduction(target, pool, pool) == 0.0
    assert kl_reduction(target, pool, target) == kl_divergence(target, pool) > 0


def test_a_bucket_that_the_subset_misses_leaves_it_finite():
    missing = np.array([0, 9])
    for smoothing in ("add_one", "eps"):
        assert math.isfinite(kl_reduction(np.array([5, 5]), np.array([9, 9]), missing, smoothing=smoothing))
    assert math.isfinite(kl_reduction(np.array([5, 5]), np.array([9, 9]), np.zeros(2, np.int64)))


def test_the_order_of_the_buckets_changes_no_bit():
    target, pool, subset = counts(TARGET), counts(RAW), counts(RAW[:2])
    order = np.random.default_rng(3).permutation(len(target))
    assert kl_reduction(target[order], pool[order], subset[order]) == kl_reduction(target, pool, subset)


@pytest.mark.parametrize(
    "bad",
    [
        np.array([1.0, 2.0]),
        np.array([1, -1]),
        np.array([[1, 2]]),
        np.array([1, 2, 3]),
        np.array([], np.int64),
    ],
)
def test_counts_that_are_no_counts_are_refused(bad):
    good = np.array([1, 2])
    with pytest.raises(DataError, match="expected"):
        kl_reduction(good, good, bad)


def test_settings_that_mean_nothing_are_refused():
    good = np.array([1, 2])
    with pytest.raises(ConfigError, match="add_one"):
        kl_reduction(good, good, good, smoothing="laplace")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="eps"):
        kl_reduction(good, good, good, smoothing="eps", eps=0.0)
    with pytest.raises(DataError, match="at least one n-gram"):
        kl_reduction(good, good, np.zeros(2, np.int64), smoothing="eps")
