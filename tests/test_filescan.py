"""Hashing files, opening them as bytes, and naming them in errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.errors import DataError, OutOfMemoryError
from curate.filescan import BLOCK_BYTES, chosen, hash_file, reading


def test_a_file_is_hashed_whole(tmp_path: Path) -> None:
    # The published xxh3-128 of no bytes; then files that differ only in a byte beyond the last whole block.
    (tmp_path / "x").write_bytes(b"")
    assert hash_file(str(tmp_path / "x")) == "99aa06d3014798d86001c324468d497f"
    (tmp_path / "x").write_bytes(b"a" * (2 * BLOCK_BYTES + 1))
    longer = hash_file(str(tmp_path / "x"))
    (tmp_path / "x").write_bytes(b"a" * (2 * BLOCK_BYTES))
    assert len(longer) == 32
    assert longer != hash_file(str(tmp_path / "x"))


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file.*gone"):
        hash_file(str(tmp_path / "gone"))
    with (
        pytest.raises(DataError, match="expected a readable thing, got: EOFError; file somewhere"),
        reading("somewhere", "thing"),
    ):
        raise EOFError


def test_a_length_that_no_memory_has_is_damage_and_one_that_it_could_have_is_not() -> None:
    with pytest.raises(DataError, match=r"malloc of size 7531425951847022656 failed; file pool/bad.arrow; it may be truncated or damaged"), reading("pool/bad.arrow"):
        raise pa.ArrowMemoryError("malloc of size 7531425951847022656 failed")
    with pytest.raises(OutOfMemoryError, match="memory ran out"), reading("pool/large.arrow"):
        raise pa.ArrowMemoryError("malloc of size 7531425951 failed")


def test_wanted_rows_are_chosen_by_their_numbers() -> None:
    rows = np.array([1, 4, 5, 9])
    assert chosen(0, 3, None).tolist() == [0, 1, 2]
    assert chosen(2, 6, rows).tolist() == [4, 5]
    assert chosen(6, 9, rows).tolist() == []
