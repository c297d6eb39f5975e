"""Exact questions about a column of numbers in DuckDB, without a sort: how far down a budget reaches, its moments.

No answer depends on the order of rows or on the number of threads: counts and integer sums only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curate.frame import Frame

_BUCKETS = 1024
_ROUNDS = 4


def number(value: float) -> str:
    """A double as an SQL expression that is exactly it, infinities included."""
    return f"CAST('{value!r}' AS DOUBLE)"


def reach(frame: Frame, table: str, value: str, size: str, limit: int) -> float | None:
    """A number such that the rows with at least this value overfill the limit, and few more do than must.

    `value` (DOUBLE, no NaN) and `size` (BIGINT, 0 or more) are expressions over `table`. None: all rows are needed.
    Buckets of equal width are counted and the one that the limit falls into is cut again; at most four passes.
    """
    low, high = frame.sql(f"SELECT min(v), max(v) FROM (SELECT {value} AS v FROM {table}) WHERE isfinite(v)")[0]
    if low is None:
        return None
    found: float | None = None
    for _ in range(_ROUNDS):
        width = (high - low) / _BUCKETS
        if not 0 < width < math.inf:
            break
        bucket = f"CASE WHEN v >= {number(high)} THEN {_BUCKETS} ELSE CAST(floor((v - {number(low)}) / {number(width)}) AS BIGINT) END"
        rows = frame.sql(
            f"""SELECT {bucket} AS b, sum(n) FROM (SELECT {value} AS v, {size} AS n FROM {table})
                WHERE v >= {number(low)} GROUP BY 1 ORDER BY 1 DESC"""
        )
        filled, cut = 0, None
        for place, amount in rows:
            filled += int(amount)
            if filled > limit:
                cut = int(place)
                break
        if cut is None:
            break  # only with what lies below the finite values, if at all
        lower = low + (cut - 1) * width  # a bucket lower than need be: no rounding can lose a row
        if lower <= low:
            found = low
            high = min(high, low + (cut + 2) * width)
            continue
        found, low, high = lower, lower, min(high, low + (cut + 2) * width)
    return found


def moments(frame: Frame, rows: str, column: str) -> tuple[float, float]:
    """Mean and standard deviation (of the population) of the finite values, by integer sums; `rows` follows FROM."""
    finite = f"(SELECT {column} AS v FROM {rows}) WHERE isfinite(v)"
    count, largest = frame.sql(f"SELECT count(*), max(abs(v)) FROM {finite}")[0]
    if not count or not largest:
        return 0.0, 0.0

    def total(expression: str) -> int:
        scaled = f"CAST(round(({expression}) * {number(2.0**60)}) AS HUGEINT)"
        return int(frame.scalar(f"SELECT CAST(sum({scaled}) AS VARCHAR) FROM {finite}"))

    unit = f"v / {number(largest)}"  # from -1 to 1
    mean = total(unit) / 2**60 / count
    centred = f"({unit} - {number(mean)})"
    spread = total(f"{centred} * {centred}") / 2**60 / count
    lowest, highest = frame.sql(f"SELECT min(v), max(v) FROM {finite}")[0]
    return mean * largest, 0.0 if lowest == highest else math.sqrt(spread) * largest


def effective_size(frame: Frame, table: str, log_weight: str) -> float | None:
    """Kish's effective sample size (sum w)^2 / sum w^2 of weights given by their logarithms; None where one is infinite."""
    best = frame.scalar(f"SELECT max({log_weight}) FROM {table}")
    if best is None or not math.isfinite(best):
        return None

    def total(power: int) -> str:
        return f"CAST(sum(CAST(round(exp({power} * (w - {number(best)})) * {number(2.0**60)}) AS HUGEINT)) AS VARCHAR)"

    first, second = frame.sql(f"SELECT {total(1)}, {total(2)} FROM (SELECT {log_weight} AS w FROM {table})")[0]
    return int(first) ** 2 / 2**60 / int(second)
