"""Better, worse, or no difference shown: a selection against random draws of the same size, judged in bits.

The claim is about one more random draw: "this selection costs fewer bits than one more random draw of equal
bytes would, on documents like those of the test". Two things are uncertain. The draws differ from one another:
with standard deviation s over R draws, one more draw less their mean has variance s^2 (1 + 1/R), with R - 1
degrees of freedom (a prediction interval; R draws are too few for a bootstrap or a sign test). And the test is
a sample: the variance of the difference over test documents is found by resampling them, the arms paired on
each. The two are added, with degrees of freedom after Welch and Satterthwaite. docs/judge.md says what the sum
leaves on the safe side, and what a simulation found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from curate.errors import ConfigError, DataError, InternalError

Word = Literal["better", "worse", "no difference shown"]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

# The standard error found is itself uncertain by 1 / sqrt(2 * 2000) = 1.6 %.
RESAMPLES = 2_000
_BLOCK = 1 << 22  # document draws held at once: 32 MB of indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a comparison showed. Bits are per byte of the test, its documents' ends included; fewer are better.

    `difference` is random - selection, positive where the selection is better, with its interval
    `low`..`high`; the two variances are those of `difference`, in (bits per byte)^2.
    """

    word: Word
    selection_bits_per_byte: float
    random_bits_per_byte: float
    random_sd: float
    difference: float
    low: float
    high: float
    confidence: float
    degrees_of_freedom: float
    variance_draws: float
    variance_documents: float
    draws: int
    documents: int
    test_bytes: int


def judge_arms(
    selection_bits: Float64,
    random_bits: Float64,
    test_bytes: Int64,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Verdict:
    """Judge a selection by the bits of each test document under each arm.

    selection_bits float64[d], random_bits float64[R, d] with R >= 2, test_bytes int64[d] with d >= 2. The bits
    of an arm are summed over the documents and divided by the sum of their bytes, so a long document weighs
    more. The word is "better" where the whole interval is above 0 and "worse" where it is below.
    """
    _check(selection_bits, random_bits, test_bytes, confidence)
    draws, documents = random_bits.shape
    total_bytes = int(test_bytes.sum())
    selection = math.fsum(selection_bits.tolist()) / total_bytes
    per_draw = np.array([math.fsum(row.tolist()) / total_bytes for row in random_bits])
    mean = math.fsum(per_draw.tolist()) / draws
    spread = math.fsum(((per_draw - mean) ** 2).tolist()) / (draws - 1)
    variance_draws = spread * (1 + 1 / draws)
    variance_documents = _variance_over_documents(random_bits.mean(axis=0) - selection_bits, test_bytes, seed)
    variance = variance_draws + variance_documents
    freedom = welch_satterthwaite((variance_draws, draws - 1), (variance_documents, documents - 1))
    difference = mean - selection
    half = student_t_quantile((1 + confidence) / 2, freedom) * math.sqrt(variance)
    low, high = difference - half, difference + half
    return Verdict(
        word="better" if low > 0 else "worse" if high < 0 else "no difference shown",
        selection_bits_per_byte=selection,
        random_bits_per_byte=mean,
        random_sd=math.sqrt(spread),
        difference=difference,
        low=low,
        high=high,
        confidence=confidence,
        degrees_of_freedom=freedom,
        variance_draws=variance_draws,
        variance_documents=variance_documents,
        draws=draws,
        documents=documents,
        test_bytes=total_bytes,
    )


def _check(selection_bits: Float64, random_bits: Float64, test_bytes: Int64, confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ConfigError(f"expected a confidence between 0 and 1, got {confidence}; 0.95 is usual")
    if random_bits.ndim != 2 or not selection_bits.shape == test_bytes.shape == random_bits.shape[1:]:
        shapes = f"{selection_bits.shape}, {random_bits.shape}, {test_bytes.shape}"
        raise InternalError(f"expected bits [d], [draws, d] and bytes [d] of one test, got shapes {shapes}")
    if random_bits.shape[0] < 2:
        raise ConfigError(f"expected at least 2 random draws, got {random_bits.shape[0]}; 10 are usual")
    if len(test_bytes) < 2:
        raise DataError(
            f"expected a test of at least 2 documents, got {len(test_bytes)}; add documents to it"
        )
    if int(test_bytes.min()) < 0 or int(test_bytes.sum()) == 0:
        raise DataError(
            "expected a test with text in it, got 0 bytes; name a test whose documents are not empty"
        )
    bad = np.flatnonzero(~(np.isfinite(selection_bits) & np.isfinite(random_bits).all(axis=0)))
    if len(bad):
        raise DataError(f"expected bits for every test document, got none for {bad[0]}; leave out null texts")


def _variance_over_documents(difference_bits: Float64, test_bytes: Int64, seed: int) -> float:
    """Return the variance of sum(difference) / sum(bytes) over resampled documents, (bits per byte)^2."""
    documents = len(test_bytes)
    generator = np.random.Philox(key=seed % 2**64)  # raw words only: no version of numpy may change them
    at_once = max(1, _BLOCK // documents)
    ratios = []
    for start in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - start)
        raw = np.asarray(generator.random_raw(rows * documents), np.uint64)
        chosen = (raw % np.uint64(documents)).astype(np.int64).reshape(rows, documents)
        of_bytes = test_bytes[chosen].sum(axis=1)
        # A resample of empty documents only has no ratio; it can occur only where nearly all of them are empty.
        ratios.append(difference_bits[chosen].sum(axis=1)[of_bytes > 0] / of_bytes[of_bytes > 0])
    # d / (d - 1): a resample varies about the sample's own mean, which is nearer to it than the truth is.
    return float(np.concatenate(ratios).var()) * documents / (documents - 1)


def welch_satterthwaite(*parts: tuple[float, float]) -> float:
    """Return the degrees of freedom of a sum of variances, each given as (variance, its degrees of freedom).

    Where all variances are 0 the least of the degrees of freedom is returned.
    """
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return min(freedom for _, freedom in parts)
    # Shares and not the variances themselves: the square of a tiny variance could vanish.
    return 1 / sum((variance / total) ** 2 / freedom for variance, freedom in parts)


def student_t_quantile(p: float, freedom: float) -> float:
    """Return the t with P(T <= t) = p of Student's distribution, 0 < p < 1, freedom > 0 (need not be whole)."""
    if p < 0.5:
        return -student_t_quantile(1 - p, freedom)
    low, high = 0.0, 1.0
    while _upper_tail(high, freedom) > 1 - p:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if _upper_tail(middle, freedom) > 1 - p:
            low = middle
        else:
            high = middle
    return (low + high) / 2 if p > 0.5 else 0.0


def _upper_tail(t: float, freedom: float) -> float:
    """P(T > t), t >= 0: half the regularised incomplete beta I_x(f / 2, 1 / 2) with x = f / (f + t^2)."""
    a, b = freedom / 2, 0.5
    x, y = freedom / (freedom + t * t), t * t / (freedom + t * t)
    if y == 0:
        return 0.5
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + b * math.log(y)
    log_front += a * -math.log1p(t * t / freedom)
    if x < (a + 1) / (a + b + 2):
        return 0.5 * math.exp(log_front) * _beta_fraction(a, b, x) / a
    return 0.5 * (1 - math.exp(log_front) * _beta_fraction(b, a, y) / b)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta (Abramowitz and Stegun 26.5.8), by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 + term * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + term / c
            c = c if abs(c) > tiny else tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            return value
    raise InternalError(
        f"expected the incomplete beta function to converge, got none for a={a}, b={b}, x={x}"
    )
