"""Vectors in a file: what comes back for a slot, for sliced, null, ragged and odd columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate import vectors
from curate.errors import ConfigError, DataError
from curate.vectors import VectorFile


def listed(rows: list[list[float] | None], kind: pa.DataType) -> pa.Array:
    return pa.array(rows, kind)


ROWS: list[list[float] | None] = [[1.0, 2.0], None, [0.0, 0.0], [3.0, -4.0], [float("nan"), 1.0], [0.5, 0.25]]


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 2)])
def test_slots_name_rows_and_nulls_and_what_has_no_direction_have_none(tmp_path: Path, kind: pa.DataType) -> None:
    file = VectorFile(tmp_path / "v", kind, "v")
    whole = listed([[9.0, 9.0], *ROWS, [9.0, 9.0]], kind)
    first, second = file.add(whole.slice(1, 4)), file.add(whole.slice(5, 2))
    assert first.to_pylist() == [0, None, None, 1]
    assert second.to_pylist() == [None, 2]
    assert file.without_direction == 2
    assert file.take(np.array([2, 0, 1, 2])).tolist() == [[0.5, 0.25], [1.0, 2.0], [3.0, -4.0], [0.5, 0.25]]
    assert file.take(np.array([0])).dtype == np.float32
    file.close()


def test_float16_takes_two_bytes_in_the_file(tmp_path: Path) -> None:
    for kind, size in ((pa.float16(), 2), (pa.float32(), 4), (pa.float64(), 4)):
        file = VectorFile(tmp_path / str(kind), pa.list_(kind, 2), "v")
        file.add(listed([[1.0, 2.0]] * 10, pa.list_(kind, 2)))
        file.take(np.array([0]))
        assert (tmp_path / str(kind)).stat().st_size == 20 * size
        file.close()


def test_what_was_read_stays_readable_after_pages_were_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_HELD", 1)
    file = VectorFile(tmp_path / "v", pa.list_(pa.float32(), 3), "v")
    rows = np.arange(1, 301, dtype=np.float32).reshape(100, 3)
    file.add(pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 3))
    for _ in range(3):
        assert (file.take(np.arange(100)) == rows).all()
    file.close()


def test_an_empty_file_gives_empty_rows(tmp_path: Path) -> None:
    file = VectorFile(tmp_path / "v", pa.list_(pa.float32()), "v")
    assert file.add(listed([None], pa.list_(pa.float32()))).to_pylist() == [None]
    assert file.take(np.empty(0, np.int64)).shape[0] == 0
    file.close()


def test_what_is_no_vector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected vectors in the column 'v'"):
        VectorFile(tmp_path / "v", pa.list_(pa.int64()), "v")
    for rows, said in (([[1.0], [1.0, 2.0]], "of one length"), ([[]], "without a coordinate"), ([[1.0, None]], "got null")):
        file = VectorFile(tmp_path / "v", pa.list_(pa.float32()), "v")
        with pytest.raises(DataError, match=said):
            file.add(pa.array(rows, pa.list_(pa.float32())))
        file.close()


def test_unit_rows_have_the_length_one() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32) * 1e-3
    assert np.linalg.norm(vectors.unit(rows), axis=1) == pytest.approx(np.ones(50), abs=1e-6)


def test_a_cosine_by_hand() -> None:
    left = np.array([[3, 4], [1, 0], [1, 0]], np.float32)
    right = np.array([[4, 3], [0, 2], [-5, 0]], np.float32)
    assert vectors.cosines(left, right).tolist() == [24 / 25, 0.0, -1.0]
