from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.frame import Frame
from curate.pipelines import cutting


def frame_of(values: list[float], tmp_path: Path, sizes: list[int] | None = None, threads: int = 1) -> Frame:
    table = pa.table({"doc": pa.array(range(len(values)), pa.int64()), "v": pa.array(values, pa.float64()), "n": pa.array(sizes or [1] * len(values), pa.int64())})
    return Frame(table.schema, table.to_batches(max_chunksize=100), lambda docs: pa.table({"doc": docs}), scratch=tmp_path, threads=threads)


@pytest.mark.parametrize("value", [0.1, -1e-320, 1.7976931348623157e308, math.inf, -math.inf, -0.0, 3.0])
def test_a_number_is_exactly_itself_in_sql(value: float, tmp_path: Path) -> None:
    assert repr(frame_of([1.0], tmp_path).scalar(f"SELECT {cutting.number(value)}")) == repr(value)


@pytest.mark.parametrize("kind", ["uniform", "cauchy", "ties", "infinities", "denormal", "huge", "one", "two"])
def test_the_reach_covers_every_row_that_the_limit_may_take(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {
        "uniform": rng.random(3000), "cauchy": rng.standard_cauchy(3000) ** 5, "ties": rng.integers(0, 4, 3000) * 1.0,
        "infinities": rng.choice([math.inf, -math.inf, 0.0, 1.0], 3000), "denormal": rng.integers(0, 9, 3000) * 5e-324,
        "huge": rng.choice([-1.7e308, 0.0, 1.7e308], 3000), "one": np.zeros(3000), "two": np.repeat([0.0, 1e-17], 1500),
    }[kind]  # fmt: skip
    sizes = rng.integers(0, 50, 3000).tolist()
    frame = frame_of(values.tolist(), tmp_path, sizes)
    order = sorted(range(3000), key=lambda i: -values[i])
    for limit in (0, 1, 10, 5000, 10**6):
        found = cutting.reach(frame, "pool", "v", "n", limit)
        filled = 0
        for i in order:
            filled += sizes[i]
            if found is not None:
                assert values[i] >= found
            if filled > limit:
                break


def test_the_reach_leaves_little_to_sort(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for values in (rng.normal(size=20_000), rng.standard_cauchy(20_000) ** 3):
        found = cutting.reach(frame_of(values.tolist(), tmp_path), "pool", "v", "1", 1000)
        assert found is not None
        assert 1000 < int((values >= found).sum()) < 1200


def test_moments_are_those_of_exact_arithmetic_over_the_finite_values(tmp_path: Path) -> None:
    for scale, shift in [(1.0, 0.0), (1e-9, 1e-3), (1e200, 0.0), (1.0, 1e6)]:
        values = (np.random.default_rng(2).normal(size=500) * scale + shift).tolist()
        mean = math.fsum(values) / 500
        deviation = math.sqrt(math.fsum(((v - mean) / scale) ** 2 for v in values) / 500) * scale
        found = cutting.moments(frame_of([*values, math.inf, -math.inf], tmp_path), "pool", "v")
        assert found == pytest.approx((mean, deviation), rel=1e-6)
        shuffled = [values[i] for i in np.random.default_rng(3).permutation(500)]
        assert cutting.moments(frame_of([-math.inf, *shuffled], tmp_path, threads=4), "pool", "v") == found


def test_equal_values_have_no_deviation(tmp_path: Path) -> None:
    assert cutting.moments(frame_of([0.1] * 7, tmp_path), "pool", "v")[1] == 0.0
    assert cutting.moments(frame_of([math.inf], tmp_path), "pool", "v") == (0.0, 0.0)
    assert cutting.moments(frame_of([], tmp_path), "pool", "v") == (0.0, 0.0)


def test_the_effective_size_is_kishs_whatever_the_scale(tmp_path: Path) -> None:
    logs = [math.log(w) for w in (1.0, 2.0, 3.0)]
    assert cutting.effective_size(frame_of(logs, tmp_path), "pool", "v") == pytest.approx(36 / 14)
    assert cutting.effective_size(frame_of([x - 5000 for x in logs], tmp_path), "pool", "v") == pytest.approx(36 / 14)
    assert cutting.effective_size(frame_of([0.0, -math.inf], tmp_path), "pool", "v") == 1.0
    assert cutting.effective_size(frame_of([0.0, math.inf], tmp_path), "pool", "v") is None
    assert cutting.effective_size(frame_of([], tmp_path), "pool", "v") is None
