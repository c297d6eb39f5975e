"""Vectors computed once by the hash of a text: what is asked again, by whom, and what a bound throws away."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from curate.errors import DataError
from curate.vectorcache import VectorCache


class Counted:
    """Gives the place as a vector, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, places: list[int]) -> np.ndarray:
        self.asked.append(places)
        return np.array([[p, p + 0.5] for p in places], np.float32)


def test_a_text_is_computed_once_in_a_batch_and_never_again(tmp_path: Path) -> None:
    count = Counted()
    cache = VectorCache(tmp_path / "c" / "v.sqlite", 2, most=1000)
    assert cache.vectors([b"a", b"b", b"a"], count).tolist() == [[0, 0.5], [1, 1.5], [0, 0.5]]
    other = VectorCache(tmp_path / "c" / "v.sqlite", 2, most=1000)  # as another process has it
    assert other.vectors([b"b", b"c"], count).tolist() == [[1, 1.5], [1, 1.5]]
    assert count.asked == [[0, 1], [1]]
    assert cache.vectors([], count).shape == (0, 2)
    cache.close()
    other.close()


def test_the_oldest_go_when_it_is_full_and_are_computed_again(tmp_path: Path) -> None:
    count = Counted()
    cache = VectorCache(tmp_path / "v.sqlite", 2, most=3 * 8)
    for name in (b"a", b"b", b"c", b"d"):
        cache.vectors([name], count)
    cache.vectors([b"b", b"c", b"d"], count)
    assert len(count.asked) == 4
    cache.vectors([b"a"], count)
    assert len(count.asked) == 5
    cache.close()


def test_a_vector_that_was_cut_off_is_computed_again(tmp_path: Path) -> None:
    count = Counted()
    cache = VectorCache(tmp_path / "v.sqlite", 2, most=1000)
    cache.vectors([b"a"], count)
    cache.close()
    with sqlite3.connect(tmp_path / "v.sqlite") as db:
        db.execute("UPDATE vectors SET vector = x'0000'")
    db.close()
    cache = VectorCache(tmp_path / "v.sqlite", 2, most=1000)
    assert cache.vectors([b"a"], count).tolist() == [[0, 0.5]]
    assert cache.vectors([b"a"], count).tolist() == [[0, 0.5]]
    assert len(count.asked) == 2
    cache.close()


def test_a_vector_of_the_right_length_with_a_flipped_bit_or_under_another_hash_is_computed_again(tmp_path: Path) -> None:
    count = Counted()
    cache = VectorCache(tmp_path / "v.sqlite", 2, most=1000)
    cache.vectors([b"a", b"b"], count)
    cache.close()
    with sqlite3.connect(tmp_path / "v.sqlite") as db:
        (a,) = db.execute("SELECT vector FROM vectors WHERE hash = ?", (b"a",)).fetchone()
        db.execute("UPDATE vectors SET vector = ? WHERE hash = ?", (bytes([a[0] ^ 1]) + a[1:], b"a"))
        db.execute("UPDATE vectors SET vector = ? WHERE hash = ?", (a, b"b"))
    db.close()
    cache = VectorCache(tmp_path / "v.sqlite", 2, most=1000)
    assert cache.vectors([b"a", b"b"], count).tolist() == [[0, 0.5], [1, 1.5]]
    assert count.asked == [[0, 1], [0, 1]]
    cache.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.sqlite").write_bytes(b"no database at all " * 100)
    with pytest.raises(DataError, match=r"v\.sqlite is damaged .*delete it"):
        VectorCache(tmp_path / "v.sqlite", 2, most=1000)
