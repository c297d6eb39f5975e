"""Compression ratio: bytes of text over bytes compressed, of the whole document and of windows of one size.

compression_ratio(x) = |x| / C(x), with C the compressed bytes, container included. High for what repeats, low for noise and
for what is already compressed; neither end is the better one. It grows with length, because a short text carries the
container and its Huffman trees and has little to look back at; `compression_ratio_window` is the same for the document's
whole windows of `window_bytes` bytes, each compressed by itself, added up: |windows| / C(windows). Whisper drops
transcripts above 2.4, by zlib (Radford et al. 2022).
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import deflate
from curate.errors import ConfigError
from curate.registry import register
from curate.stage import REASON, TEXT, VALUE, Context


class CompressionRatioParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`window_bytes` is the size of a window; a document shorter than one has no ratio of windows."""

    compressor: Literal["gzip", "zlib", "deflate", "zstd", "lz4"] = "gzip"
    level: int = 6
    window_bytes: int = 1024

    def __post_init__(self) -> None:
        deflate.Compressor(self.compressor, self.level)
        if self.window_bytes < 1:
            raise ConfigError(f"expected window_bytes of 1 or more, got {self.window_bytes}")


@register("compression_ratio")
class CompressionRatio:
    """Adds `compression_ratio` (float64) and `compression_ratio_window` (float64, null where shorter than a window)."""

    version = 1
    Params = CompressionRatioParams
    scores = True

    def __init__(self, params: CompressionRatioParams, context: Context) -> None:
        self.params = params
        self.compressor = deflate.Compressor(params.compressor, params.level)
        self.library = self.compressor.library()

    def extra_key(self) -> str:
        """Another version of a compressor's library may give other lengths."""
        return self.library

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        return pa.schema([(VALUE, pa.float64()), ("window", pa.float64()), (REASON, pa.string())])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        text = batch.column(TEXT)
        size = pc.binary_length(text).to_numpy(zero_copy_only=False).astype(np.int64)
        ratio = size / deflate.lengths(text, self.compressor)
        pieces, owners = windows(text, self.params.window_bytes)
        packed = np.zeros(len(text), np.int64)
        np.add.at(packed, owners, deflate.lengths(pieces, self.compressor))
        whole = size // self.params.window_bytes * self.params.window_bytes
        empty = pa.array(size == 0)
        return pa.record_batch(
            [
                pa.array(ratio, mask=size == 0),
                pa.array(whole / np.maximum(packed, 1), mask=whole == 0),
                pc.if_else(empty, "empty text", pa.scalar(None, pa.string())),
            ],
            schema=self.fields(),
        )


def windows(text: pa.Array, size: int) -> tuple[pa.Array, np.ndarray]:
    """The texts' whole windows of `size` bytes, one behind the other, and the row that each is of, int64[windows].

    A window may begin or end inside a character: it is for a compressor, not for a reader.
    """
    whole = text.cast(pa.large_string())
    if not len(whole):
        return whole, np.empty(0, np.int64)
    ends = np.frombuffer(whole.buffers()[1], np.int64)[whole.offset : whole.offset + len(whole) + 1]
    counts = np.diff(ends) // size + 1  # the last piece of each text is what is left over
    owners = np.repeat(np.arange(len(whole)), counts)
    place = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    offsets = np.append(ends[:-1][owners] + place * size, ends[-1])
    pieces = pa.Array.from_buffers(pa.large_string(), len(owners), [None, pa.py_buffer(offsets), whole.buffers()[2]])
    is_whole = place < (counts - 1)[owners]
    return pieces.filter(pa.array(is_whole)), owners[is_whole]
