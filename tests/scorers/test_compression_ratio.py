"""Compression ratios by zlib and by hand, of whole documents and of windows."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from curate import deflate
from curate.errors import ConfigError
from curate.scorers.compression_ratio import CompressionRatio, CompressionRatioParams, windows
from curate.stage import TEXT, Context

DRAW = random.Random(4)
TEXTS = ["", "a", "abc" * 500, "".join(DRAW.choices("abcdefghij é世", k=3000)), "x" * 1024, "y" * 1023]

needs_stock_zlib = pytest.mark.skipif(not deflate.stock_zlib(), reason="this Python's zlib gives other lengths")


def ratios(texts: Sequence[str] = TEXTS, **settings: Any) -> pa.RecordBatch:
    stage = CompressionRatio(CompressionRatioParams(**settings), Context("compression_ratio"))
    return stage.apply(None, pa.record_batch([pa.array(texts)], names=[TEXT]))


@needs_stock_zlib
@pytest.mark.parametrize("window", [100, 1024])
def test_ratios_are_those_of_zlib(window: int) -> None:
    found = ratios(compressor="zlib", level=6, window_bytes=window)
    for text, whole, part in zip(TEXTS, found["value"].to_pylist(), found["window"].to_pylist(), strict=True):
        raw = text.encode()
        assert whole == (len(raw) / len(zlib.compress(raw, 6)) if raw else None)
        pieces = [raw[i : i + window] for i in range(0, len(raw) - window + 1, window)]
        assert part == (window * len(pieces) / sum(len(zlib.compress(p, 6)) for p in pieces) if pieces else None)


def test_by_hand() -> None:
    # one byte: a literal and the end of the block in fixed trees, 3 bytes, and gzip's 18
    found = ratios(["a", ""])
    assert found["value"].to_pylist() == [1 / 21, None]
    assert found["window"].to_pylist() == [None, None]
    assert found["reason"].to_pylist() == [None, "empty text"]


def test_windows_do_not_grow_with_the_document_and_the_whole_does() -> None:
    text = "".join(DRAW.choices(["the sea ", "a house ", "and then ", "by night "], k=4000))
    short, long = (ratios([text[:n]])for n in (2048, 20_480))
    assert long["value"][0].as_py() > 1.3 * short["value"][0].as_py()
    assert long["window"][0].as_py() == pytest.approx(short["window"][0].as_py(), rel=0.05)


def test_windows_of_a_slice_are_its_own_and_nothing_is_left_over() -> None:
    sliced = pa.array(["0123456789", "abcdef", "", "uvwxyz1", "tail"]).slice(1, 3)
    pieces, owners = windows(sliced, 3)
    assert pieces.to_pylist() == ["abc", "def", "uvw", "xyz"]
    assert owners.tolist() == [0, 0, 2, 2]
    assert windows(pa.array([], pa.string()), 3)[0].to_pylist() == []


def test_a_window_may_cut_a_character_for_every_compressor() -> None:
    pieces, _ = windows(pa.array(["世界世界"]), 4)
    assert len(pieces) == 3
    assert ratios(["世界世界"], compressor="zstd", level=3, window_bytes=4)["window"][0].as_py() is not None


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="level 0 stores"):
        CompressionRatioParams(level=0)
    with pytest.raises(ConfigError, match="window_bytes of 1 or more"):
        CompressionRatioParams(window_bytes=0)
