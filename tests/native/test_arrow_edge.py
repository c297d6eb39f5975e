"""The binding's edge, without the Python faces: what it takes, and what it refuses before any kernel runs."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate import _native

SETTINGS = (2, 100, 0, 0, 0, 0, 7)
SHA_SETTINGS = (2, 100, 1, 0, 0, 0, 7)


def words(text: Any, rows: int) -> list[int]:
    sizes, found = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    _native.text_stats(text, 7, sizes, found)
    return found.tolist()


class Foreign:
    """Another producer of Arrow memory: it only has the method, and lends what pyarrow made."""

    def __init__(self, array: pa.Array) -> None:
        self._array = array

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        schema, array = self._array.__arrow_c_array__(requested_schema)
        return schema, array


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_any_producer_of_text_is_read(kind: pa.DataType) -> None:
    assert words(Foreign(pa.array(["a b", None, ""], kind)), 3) == [2, 0, 0]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("start", range(12))
def test_a_slice_reads_from_its_offset_and_its_bit_of_the_bitmap(kind: pa.DataType, start: int) -> None:
    texts = [None if i % 3 == 0 else " ".join("w" * i) for i in range(20)]
    expected = [0 if text is None else len(text.split()) for text in texts]
    assert words(pa.array(texts, kind).slice(start, 7), 7) == expected[start : start + 7]


def test_an_unknown_count_of_nulls_is_not_no_nulls() -> None:
    """A slice of an array with nulls is exported with a null count of -1 until someone counts."""
    sliced = pa.array(["a", None, "b", None]).slice(1)
    assert words(sliced, 3) == [0, 1, 0]
    whole = pa.Array.from_buffers(pa.string(), 4, pa.array(["a", None, "b", None]).buffers(), null_count=-1)
    assert words(whole, 4) == [1, 0, 1, 0]


class Handmade:
    """An array of the C data interface made field by field, so that it may be what pyarrow would not make."""

    def __init__(
        self,
        offsets: np.ndarray | None,
        data: bytes | None,
        *,
        length: int,
        n_buffers: int = 3,
        offset: int = 0,
        kind: bytes = b"u",
    ) -> None:
        pointers = (None, None if offsets is None else offsets.ctypes.data, data)
        self._kept = offsets
        self._buffers = (ctypes.c_void_p * 3)(
            *(ctypes.cast(p, ctypes.c_void_p) if p else None for p in pointers)
        )
        self._schema = Schema(format=kind)
        self._array = Array(length=length, offset=offset, n_buffers=n_buffers)
        self._array.buffers = ctypes.cast(self._buffers, ctypes.c_void_p)

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return (
            new(ctypes.addressof(self._schema), b"arrow_schema", None),
            new(ctypes.addressof(self._array), b"arrow_array", None),
        )


class Schema(ctypes.Structure):
    _fields_ = (
        ("format", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("metadata", ctypes.c_char_p),
        ("flags", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


class Array(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_int64),
        ("null_count", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("buffers", ctypes.c_void_p),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


def test_texts_that_are_all_empty_may_have_no_data_buffer() -> None:
    empty = Handmade(np.zeros(4, np.int32), None, length=3)
    assert words(empty, 3) == [0, 0, 0]
    counts = np.zeros(100, np.int64)
    _native.ngrams_count(empty, SETTINGS, None, None, 1, counts)
    assert counts.sum() == 0


def test_no_rows_need_no_buffers() -> None:
    assert words(pa.array([], pa.string()), 0) == []
    assert words(Handmade(None, None, length=0), 0) == []


def test_an_offset_moves_both_offsets_and_bitmap() -> None:
    assert words(Handmade(np.array([0, 1, 4, 10], np.int32), b"aa b c d e", length=2, offset=1), 2) == [2, 3]
    large = Handmade(np.array([0, 1, 4, 10], np.int64), b"aa b c d e", length=2, offset=1, kind=b"U")
    assert words(large, 2) == [2, 3]


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (Handmade(np.array([0, 3], np.int32), None, length=1), "bytes behind the offsets"),
        (Handmade(None, b"abc", length=1), "offsets in a string array"),
        (Handmade(np.array([0, 3], np.int32), b"abc", length=-1), "length of 0 or more"),
        (Handmade(np.array([0, 3], np.int32), b"abc", length=1, offset=-1), "length of 0 or more"),
        (Handmade(np.array([0, 3], np.int32), b"abc", length=1, n_buffers=2), "three buffers"),
        (
            Handmade(np.array([0, 3, 2], np.int32), b"abc", length=2),
            "never decrease, got a smaller one at row 2",
        ),
        (Handmade(np.array([-1, 3], np.int64), b"abc", length=1, kind=b"U"), "smaller one at row 0"),
    ],
)
def test_a_malformed_array_is_refused(array: Handmade, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        words(array, 1)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array(["a"], pa.string_view()), "string_view; cast it first with array.cast"),
        (pa.array(["a"]).dictionary_encode(), r"decode it first with array.dictionary_decode\(\)"),
        (pa.array([1]), "Arrow format 'l'; cast it first"),
        (pa.array([[1]]), r"Arrow format '\+l'"),
        (pa.array([None]), "Arrow format 'n'"),
    ],
)
def test_other_types_are_refused_by_name_with_the_fix(column: pa.Array, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        words(column, 1)


def test_what_is_not_arrow_is_refused() -> None:
    class Liar:
        def __arrow_c_array__(self) -> object:
            return ("schema", "array")

    class Short:
        def __arrow_c_array__(self) -> object:
            return ()

    with pytest.raises(AttributeError, match="__arrow_c_array__"):
        words(["a"], 1)
    with pytest.raises(ValueError, match="PyCapsule"):
        words(Liar(), 1)
    with pytest.raises(TypeError, match="pair of capsules"):
        words(Short(), 1)


CALLS: list[tuple[str, Callable[[], object], str]] = [
    (
        "stats",
        lambda: _native.text_stats(pa.array(["a"]), 7, np.zeros(2, np.int64), np.zeros(1, np.int64)),
        "8 bytes in 'bytes'",
    ),
    (
        "counts",
        lambda: _native.ngrams_count(pa.array(["a"]), SETTINGS, None, None, 1, np.zeros(99, np.int64)),
        "in 'counts'",
    ),
    (
        "cells",
        lambda: _native.ngrams_count(pa.array(["a"]), SETTINGS, None, None, 0, np.zeros(0)),
        "1 to 255 cells",
    ),
    (
        "cell",
        lambda: _native.ngrams_count(pa.array(["a"]), SETTINGS, None, b"ab", 1, np.zeros(100)),
        "in 'cell'",
    ),
    (
        "cell value",
        lambda: _native.ngrams_count(pa.array(["a"]), SETTINGS, None, b"\x01", 1, np.zeros(100)),
        "cell below 1",
    ),
    (
        "no cache",
        lambda: _native.ngrams_count(pa.array(["a"]), SHA_SETTINGS, None, None, 1, np.zeros(100)),
        "a cache",
    ),
    (
        "cache",
        lambda: _native.ngrams_count(pa.array(["a"]), SHA_SETTINGS, np.zeros(9), None, 1, np.zeros(100)),
        "power of two",
    ),
    (
        "targets",
        lambda: _native.ngrams_score(pa.array(["a"]), SETTINGS, None, b"", 0, b"", b""),
        "65536 targets",
    ),
    ("ratio", lambda: _native.ngrams_score(pa.array(["a"]), SETTINGS, None, b"", 1, b"", b""), "in 'ratio'"),
    ("orders", lambda: _native.ngrams_tokenize(pa.array(["a"]), (9, 100, 0, 0, 0, 0, 7)), "ngrams in 1..8"),
    ("buckets", lambda: _native.ngrams_tokenize(pa.array(["a"]), (2, 2**31, 0, 0, 0, 0, 7)), "buckets in 1"),
    ("token", lambda: _native.ngrams_bucket(pa.array(["a", ""]), SETTINGS), "an empty one"),
    ("tokens", lambda: _native.ngrams_bucket(pa.array([], pa.string()), SETTINGS), "at least one token"),
    ("keys", lambda: _native.noise_bits(b"1234567", 0, bytearray(7)), "8 bytes per key"),
    ("out", lambda: _native.noise_bits(np.zeros(2), 0, np.zeros(1)), "in 'out'"),
]


@pytest.mark.parametrize(
    ("call", "told"), [(call, told) for _, call, told in CALLS], ids=[name for name, _, _ in CALLS]
)
def test_buffers_of_another_size_are_refused_before_they_are_touched(
    call: Callable[[], object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        call()


def test_a_buffer_that_may_not_be_written_is_refused() -> None:
    with pytest.raises((BufferError, ValueError, TypeError)):
        _native.text_stats(pa.array(["a"]), 7, bytes(8), bytearray(8))
    frozen = np.zeros(100, np.int64)
    frozen.flags.writeable = False
    with pytest.raises((BufferError, ValueError)):
        _native.ngrams_count(pa.array(["a"]), SETTINGS, None, None, 1, frozen)


def test_an_unaligned_buffer_is_refused() -> None:
    room = np.zeros(17, np.uint8)
    start = 1 if room.ctypes.data % 8 == 0 else 0
    with pytest.raises(ValueError, match="aligned to 8 bytes"):
        _native.text_stats(pa.array(["a"]), 7, room[start : start + 8], np.zeros(1, np.int64))


def test_nothing_is_kept_after_a_call_that_fails_or_succeeds() -> None:
    text, counts, cell = pa.array(["a b"]), np.zeros(100, np.int64), np.zeros(1, np.uint8)
    wrong = np.ones(1, np.uint8)

    def held() -> list[int]:
        return [sys.getrefcount(thing) for thing in (text, counts, cell, wrong)]

    before = held()
    for _ in range(50):
        _native.ngrams_count(text, SETTINGS, None, cell, 1, counts)
        with pytest.raises(ValueError, match="cell below 1"):
            _native.ngrams_count(text, SETTINGS, None, wrong, 1, counts)
    gc.collect()
    assert held() == before


def test_pyarrow_may_let_go_of_the_memory_afterwards() -> None:
    allocated = pa.total_allocated_bytes()
    text = pa.array(["some words here"] * 10_000)
    assert words(text, 10_000) == [3] * 10_000
    del text
    gc.collect()
    assert pa.total_allocated_bytes() == allocated
