"""Packing: hand-made layouts, a slow best-fit-decreasing, and what holds of every layout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.packing import Pieces, pack


def layout(pieces: Pieces) -> list[list[tuple[int, int, int]]]:
    """For each sequence its pieces as (document, first token, tokens)."""
    found: list[list[tuple[int, int, int]]] = [[] for _ in range(pieces.sequences)]
    for d, f, n, s, start in zip(pieces.document, pieces.first, pieces.length, pieces.sequence, pieces.start, strict=True):
        assert start == sum(piece[2] for piece in found[s])
        found[s].append((int(d), int(f), int(n)))
    return found


def test_best_fit_by_hand() -> None:
    # longest first: 8 of document 3 alone; 5; 3 beside the 5 (room 3 exactly); 2; 1 beside the 2
    assert layout(pack([5, 3, 2, 9], 8)) == [[(0, 0, 5), (1, 0, 3)], [(2, 0, 2), (3, 8, 1)], [(3, 0, 8)]]


def test_the_tightest_room_is_taken() -> None:
    # 7 leaves 3, 6 leaves 4; the 3 goes beside the 7 and not beside the 6
    assert layout(pack([6, 7, 3], 10)) == [[(0, 0, 6)], [(1, 0, 7), (2, 0, 3)]]


def test_concatenation_by_hand() -> None:
    assert layout(pack([5, 0, 3, 2, 9], 8, "concat")) == [[(0, 0, 5), (2, 0, 3)], [(3, 0, 2), (4, 0, 6)], [(4, 6, 3)]]


def test_one_document_to_a_sequence_by_hand() -> None:
    assert layout(pack([5, 0, 9], 8, "one")) == [[(0, 0, 5)], [(2, 0, 8)], [(2, 8, 1)]]


def test_groups_are_packed_on_their_own_and_in_their_order() -> None:
    # together 7 1 | 4 4 | 6 would be three sequences of 8; by groups 4 | 7 1 | 6 | 4, and the empty document is nowhere
    assert layout(pack([4, 7, 1, 0, 6, 4], 8, groups=[0, 3, 3, 3, 7, 7])) == [[(0, 0, 4)], [(1, 0, 7), (2, 0, 1)], [(4, 0, 6)], [(5, 0, 4)]]
    assert layout(pack([4, 7, 1, 0, 6, 4], 8, "concat", groups=[0, 3, 3, 3, 7, 7])) == layout(pack([4, 7, 1, 0, 6, 4], 8, "concat"))
    assert pack([], 8, groups=[]).sequences == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=30), st.integers(1, 9))
def test_each_group_is_laid_out_as_if_it_stood_alone(documents: list[tuple[int, int]], limit: int) -> None:
    documents = sorted(documents, key=lambda d: d[1])
    expected = []
    for group in range(4):
        at = [i for i, d in enumerate(documents) if d[1] == group]
        expected += [[(at[0] + d, f, n) for d, f, n in row] for row in layout(pack([documents[i][0] for i in at], limit))]
    assert layout(pack([d[0] for d in documents], limit, groups=[d[1] for d in documents])) == expected


@pytest.mark.parametrize("how", ["best_fit", "concat", "one"])
def test_nothing_is_packed_into_nothing(how: str) -> None:
    assert pack([], 4, how).sequences == pack([0, 0], 4, how).sequences == 0  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 40), max_size=40), st.integers(1, 17), st.sampled_from(["best_fit", "concat", "one"]))
def test_every_token_stands_once_and_no_sequence_is_overfull(lengths: list[int], limit: int, how: str) -> None:
    rows = layout(pack(lengths, limit, how))  # type: ignore[arg-type]
    seen = sorted((d, t) for row in rows for d, f, n in row for t in range(f, f + n))
    assert seen == [(d, t) for d, n in enumerate(lengths) for t in range(n)]
    assert all(0 < sum(n for _, _, n in row) <= limit for row in rows)
    assert all(row == sorted(row) for row in rows)


def brute(lengths: list[int], limit: int) -> int:
    """How many sequences best-fit decreasing needs, by looking at every one for every piece."""
    pieces = sorted((min(limit, n - at) for n in lengths for at in range(0, n, limit)), reverse=True)
    rooms: list[int] = []
    for size in pieces:
        fitting = [i for i, room in enumerate(rooms) if room >= size]
        if fitting:
            rooms[min(fitting, key=lambda i: rooms[i])] -= size
        else:
            rooms.append(limit - size)
    return len(rooms)


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 30))
def test_best_fit_needs_as_many_sequences_as_a_slow_search(lengths: list[int], limit: int) -> None:
    assert pack(lengths, limit).sequences == brute(lengths, limit)


def test_ten_thousand_documents_fill_their_sequences() -> None:
    sizes = np.random.default_rng(0).integers(1, 900, 10_000)
    assert sizes.sum() / (pack(sizes, 1024).sequences * 1024) > 0.99
