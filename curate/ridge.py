"""Ridge regression whose answer does not depend on the order of the rows, the threads or the linear algebra library.

Columns are rounded to 18 bits of their largest value, so the sums of products are integers and exact; the equations are
solved by elimination in plain elementwise steps. The penalty is chosen by five-fold cross-validation.

    fit([[1.0], [2.0], [3.0], ...], [2.0, 4.0, 6.0, ...]).weights  ->  about [2.0]
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from curate.errors import InternalError

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

#: A product of two columns' values is below 2^36, its sum over MOST_ROWS times as many rows again below 2^63.
_BITS = 18
MOST_ROWS = 10_000
FOLDS = 5
#: Shares of a column's variance that are added to it (Hoerl and Kennard 1970).
PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


class Fitted(msgspec.Struct, frozen=True):
    """y is about intercept + x @ weights. `left_out` float64[rows]: each row predicted by a fit without its fold."""

    weights: Float64
    intercept: float
    penalty: float
    left_out: Float64

    def predict(self, x: Float64) -> Float64:
        """float64[rows] from float64[rows, columns]; a row's number does not depend on the other rows."""
        return _predicted(self.weights, self.intercept, x)


def fit(x: Float64, y: Float64) -> Fitted:
    """Fit float64[rows, columns] to float64[rows]; row i belongs to fold i % 5.

    The weights depend on which rows are in which fold, through the penalty alone. Raises InternalError for no rows or
    more than MOST_ROWS, and for numbers that are not finite.
    """
    rows = len(x)
    if not 1 <= rows <= MOST_ROWS or not np.isfinite(x).all() or not np.isfinite(y).all():
        raise InternalError(f"expected 1 to {MOST_ROWS} rows of finite numbers to fit, got {rows}")
    scale = _scale(np.column_stack([x, y]))
    rounded = np.rint(np.column_stack([x, y]) / scale * (1 << _BITS)).astype(np.int64)
    rounded = np.column_stack([rounded, np.ones(rows, np.int64)])
    folds = [rounded[fold::FOLDS] for fold in range(FOLDS)]
    products = [fold.T @ fold for fold in folds]
    whole = np.sum(products, axis=0)
    best: tuple[float, float, Float64] | None = None
    for penalty in PENALTIES:
        left_out = np.empty(rows)
        for fold, own in enumerate(products):
            left_out[fold::FOLDS] = _predicted(*_solved(whole - own, scale, penalty), x[fold::FOLDS])
        error = float(np.sum(np.rint((left_out - y) ** 2 / scale[-1] ** 2 * 2.0**40)))
        if best is None or error < best[0]:
            best = (error, penalty, left_out)
    assert best is not None
    weights, intercept = _solved(whole, scale, best[1])
    return Fitted(weights, intercept, best[1], best[2])


def _scale(columns: Float64) -> Float64:
    """For each column the power of two that is not below its largest absolute value."""
    largest = np.abs(columns).max(axis=0)
    return np.where(largest > 0, 2.0 ** np.ceil(np.log2(np.where(largest > 0, largest, 1))), 1)


def _solved(products: Int64, scale: Float64, penalty: float) -> tuple[Float64, float]:
    """Weights and intercept from the integer sums of products, the row counts last; a constant column weighs nothing."""
    rows, sums = int(products[-1, -1]), products[-1, :-1]
    if rows == 0:
        return np.zeros(len(sums) - 1), 0.0
    centred = (rows * products[:-1, :-1] - np.outer(sums, sums)).astype(np.float64)
    spread = np.sqrt(np.diag(centred)[:-1])
    used = spread > 0
    spread = spread[used]
    left = centred[:-1, :-1][np.ix_(used, used)] / spread[:, None] / spread[None, :]
    left[np.diag_indices(len(left))] += penalty
    weights = np.zeros(len(used))
    weights[used] = _eliminated(left, centred[:-1, -1][used] / spread) / spread
    weights *= scale[-1] / scale[:-1]
    mean = sums * (scale / (1 << _BITS)) / rows
    return weights, float(mean[-1] - _predicted(weights, 0.0, mean[None, :-1])[0])


def _eliminated(left: Float64, right: Float64) -> Float64:
    """Solve a positive definite system by Gaussian elimination: no sum is left to a library."""
    both = np.column_stack([left, right])
    size = len(left)
    for k in range(size - 1):
        factors = both[k + 1 :, k] / both[k, k]
        both[k + 1 :, k:] -= factors[:, None] * both[k, k:]
    found = both[:, -1].copy()
    for k in range(size - 1, -1, -1):
        found[k] /= both[k, k]
        found[:k] -= both[:k, k] * found[k]
    return found


def _predicted(weights: Float64, intercept: float, x: Float64) -> Float64:
    """intercept + x @ weights, column after column."""
    total = np.full(len(x), intercept)
    for weight, column in zip(weights, x.T, strict=True):
        total += weight * column
    return total
