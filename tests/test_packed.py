"""Packed sequences: labels, positions, the order of a training, and the thread that works ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import modeling_flash_attention_utils

from curate.errors import ConfigError
from curate.packed import MemorySequences, Order, ahead, collate, labels_of, shares, targets_in

TWO = MemorySequences([[("a", [5, 6, 7]), ("b", [8, 9], [0, 1])], [("c", [1])]], sequence_length=8, vocab_size=10)


def test_a_label_is_the_next_token_of_the_same_document_where_the_mask_has_it() -> None:
    assert labels_of(TWO, 0).tolist() == [6, 7, -100, 9, -100]
    assert labels_of(TWO, 1).tolist() == [-100]
    assert targets_in(TWO, np.array([0, 1])) == 3


def test_the_mask_is_of_the_token_that_is_learned_not_of_the_place_before_it() -> None:
    data = MemorySequences([[("a", [1, 2, 3, 4], [0, 0, 1, 1])]], sequence_length=4, vocab_size=5)
    assert labels_of(data, 0).tolist() == [-100, 3, 4, -100]


def test_positions_begin_again_with_every_document_and_with_padding() -> None:
    batch = collate(TWO, np.array([0, 1]))
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2], [0, 0, 1, 2, 3, 4, 5, 6]]
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert batch.labels.tolist() == [[6, 7, -100, 9, -100, -100, -100, -100], [-100] * 8]
    assert (batch.tokens, batch.squares) == (6, 9 + 4 + 1)


def test_rows_are_cut_to_the_longest_rounded_up_unless_asked_not_to() -> None:
    data = MemorySequences([[("a", [1] * 70)], [("b", [1] * 200)]], sequence_length=200, vocab_size=2)
    assert collate(data, np.array([0])).input_ids.shape == (1, 128)
    assert collate(data, np.array([0, 1])).input_ids.shape == (2, 200)
    assert collate(data, np.array([0]), cut=False).input_ids.shape == (1, 200)


def test_a_sequence_that_is_too_long_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 3 tokens, got 4"):
        MemorySequences([[("a", [1, 2, 3, 4])]], sequence_length=3, vocab_size=5)


@given(st.integers(1, 40), st.integers(1, 17), st.integers(1, 120), st.integers(0, 5), st.booleans())
def test_every_epoch_is_every_sequence_once(sequences: int, batch: int, total: int, seed: int, shuffle: bool) -> None:
    order = Order(sequences, batch, total, seed=seed, shuffle=shuffle)
    steps = [order.step(s) for s in range(-(-total // batch))]
    assert all(len(step) == batch for step in steps[:-1])
    drawn = np.concatenate(steps)
    assert len(drawn) == total
    for at in range(0, total, sequences):
        epoch = drawn[at : at + sequences]
        assert len(set(epoch.tolist())) == len(epoch)
    assert set(drawn[: total // sequences * sequences].tolist()) <= set(range(sequences))


def test_a_step_is_the_same_whenever_and_in_whichever_process_it_is_asked_for() -> None:
    one, other = (Order(50, 7, 200, seed=3) for _ in range(2))
    later = other.step(20).tolist()
    assert [one.step(s).tolist() for s in range(21)][20] == later
    assert Order(50, 7, 200, seed=4).step(20).tolist() != later


def test_epochs_have_orders_of_their_own_and_without_shuffling_the_given_one() -> None:
    order = Order(30, 30, 60, seed=0)
    assert order.step(0).tolist() != order.step(1).tolist()
    assert Order(30, 30, 60, seed=0, shuffle=False).step(1).tolist() == list(range(30))


@given(st.integers(0, 40), st.integers(1, 9))
def test_devices_share_a_step_in_order(sequences: int, devices: int) -> None:
    found = shares(np.arange(sequences), devices)
    assert len(found) == devices
    assert np.concatenate(found).tolist() == list(range(sequences))
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_what_is_made_ahead_comes_in_order_and_ends() -> None:
    assert list(ahead(iter(range(100)))) == list(range(100))


def test_an_error_while_working_ahead_is_raised_where_the_items_are_used() -> None:
    def work() -> Iterator[int]:
        yield 1
        raise ValueError("bad row")

    items = ahead(work())
    assert next(items) == 1
    with pytest.raises(ValueError, match="bad row"):
        next(items)


def test_the_thread_ends_when_nobody_wants_more() -> None:
    items = ahead(iter(range(10**9)))
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert not any(t.name == "curate-train-data" for t in threading.enumerate())


def test_flat_rows_are_one_that_flash_attention_sees_as_packed() -> None:
    flash: Any = modeling_flash_attention_utils
    sequences = MemorySequences([[("a", [1, 2, 3]), ("b", [4, 5])], [("c", [6, 7, 8, 9])]], sequence_length=5, vocab_size=10)
    rows, flat = (collate(sequences, np.array([0, 1]), flat=f) for f in (False, True))
    # in a batch of two rows transformers looks across every boundary
    assert not flash._is_packed_sequence(torch.from_numpy(rows.position_ids), 2)
    assert flash._is_packed_sequence(torch.from_numpy(flat.position_ids), 1)
    assert flat.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]]
    assert flat.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 3, 0]]
    assert flat.labels.tolist() == [[2, 3, -100, 5, -100, 7, 8, 9, -100, -100]]
    assert (flat.tokens, flat.squares) == (rows.tokens, rows.squares) == (9, 9 + 4 + 16)
