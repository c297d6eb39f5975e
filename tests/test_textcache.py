"""Values computed once by the hash of a text: what is asked again, by whom, and what a bound throws away."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from curate.errors import DataError
from curate.textcache import TextCache


class Counted:
    """Gives the place eight times over, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, places: list[int]) -> list[bytes]:
        self.asked.append(places)
        return [bytes([p]) * 8 for p in places]


def eight(*places: int) -> list[bytes]:
    return [bytes([p]) * 8 for p in places]


def test_a_text_is_computed_once_in_a_batch_and_never_again(tmp_path: Path) -> None:
    count = Counted()
    cache = TextCache(tmp_path / "c" / "v.sqlite", "vectors", most=1000)
    assert cache.values([b"a", b"b", b"a"], count) == eight(0, 1, 0)
    other = TextCache(tmp_path / "c" / "v.sqlite", "vectors", most=1000)  # as another process has it
    assert other.values([b"b", b"c"], count) == eight(1, 1)
    assert count.asked == [[0, 1], [1]]
    assert cache.values([], count) == []
    cache.close()
    other.close()


def test_the_oldest_go_when_it_is_full_and_are_computed_again(tmp_path: Path) -> None:
    count = Counted()
    cache = TextCache(tmp_path / "v.sqlite", "vectors", most=3 * 8)
    for name in (b"a", b"b", b"c", b"d"):
        cache.values([name], count)
    cache.values([b"b", b"c", b"d"], count)
    assert len(count.asked) == 4
    cache.values([b"a"], count)
    assert len(count.asked) == 5
    cache.close()


def test_values_of_any_length_are_bounded_by_their_bytes_and_a_replaced_one_counts_once(tmp_path: Path) -> None:
    sizes = {b"a": 10, b"b": 0, b"c": 25, b"d": 5}
    cache = TextCache(tmp_path / "v.sqlite", "losses", most=40)
    for name in (b"a", b"b", b"c", b"d"):
        assert cache.values([name], lambda _, n=name: [b"x" * sizes[n]]) == [b"x" * sizes[name]]
    with sqlite3.connect(tmp_path / "v.sqlite") as db:
        db.execute("UPDATE texts SET value = zeroblob(13) WHERE hash = ?", (b"d",))
    db.close()
    assert cache.values([b"d"], lambda _: [b"x" * 5]) == [b"x" * 5]  # computed again, in the place of the damaged one
    assert cache.values([b"a", b"b", b"c"], lambda _: pytest.fail("it was there")) == [b"x" * 10, b"", b"x" * 25]
    assert cache.values([b"e"], lambda _: [b"y"]) == [b"y"]
    asked: list[int] = []
    cache.values([b"b", b"c", b"d", b"e", b"a"], lambda places: asked.extend(places) or [b"x"])
    assert asked == [4]
    cache.close()


def test_a_value_that_was_cut_off_is_computed_again(tmp_path: Path) -> None:
    count = Counted()
    cache = TextCache(tmp_path / "v.sqlite", "vectors", most=1000)
    cache.values([b"a"], count)
    cache.close()
    with sqlite3.connect(tmp_path / "v.sqlite") as db:
        db.execute("UPDATE texts SET value = x'0000'")
    db.close()
    cache = TextCache(tmp_path / "v.sqlite", "vectors", most=1000)
    assert cache.values([b"a"], count) == eight(0)
    assert cache.values([b"a"], count) == eight(0)
    assert len(count.asked) == 2
    cache.close()


def test_a_value_of_the_right_length_with_a_flipped_bit_or_under_another_hash_is_computed_again(tmp_path: Path) -> None:
    count = Counted()
    cache = TextCache(tmp_path / "v.sqlite", "vectors", most=1000)
    cache.values([b"a", b"b"], count)
    cache.close()
    with sqlite3.connect(tmp_path / "v.sqlite") as db:
        (a,) = db.execute("SELECT value FROM texts WHERE hash = ?", (b"a",)).fetchone()
        db.execute("UPDATE texts SET value = ? WHERE hash = ?", (bytes([a[0] ^ 1]) + a[1:], b"a"))
        db.execute("UPDATE texts SET value = ? WHERE hash = ?", (a, b"b"))
    db.close()
    cache = TextCache(tmp_path / "v.sqlite", "vectors", most=1000)
    assert cache.values([b"a", b"b"], count) == eight(0, 1)
    assert count.asked == [[0, 1], [0, 1]]
    cache.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.sqlite").write_bytes(b"no database at all " * 100)
    with pytest.raises(DataError, match=r"v\.sqlite is damaged .*delete it"):
        TextCache(tmp_path / "v.sqlite", "vectors", most=1000)
