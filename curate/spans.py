"""Spans: what a stage that changes text cuts out of it or puts in its place; and the text as such stages left it.

A stage changes text by adding a column `spans` of type SPANS to its `fields()`: for each row a list of sorted,
disjoint byte ranges of the UTF-8 that it was shown, on code-point boundaries, each with what stands there instead.
No span, or null, leaves the text alone. The input files are never rewritten: whoever reads the text after the stage,
`emit` last, sees it through the spans of the stages before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import _native
from curate.corpus import Layout, Part, read_part
from curate.errors import StageError
from curate.stage import BYTES, TEXT, TEXT_HASH, WORDS
from curate.store import Sidecars

FIELD = "spans"
#: start and stop: bytes of the UTF-8 that the stage was shown, stop excluded; text: what stands there instead
SPAN = pa.struct([("start", pa.int64()), ("stop", pa.int64()), ("text", pa.string())])
SPANS = pa.list_(SPAN)
#: What the program adds to the sidecar of a stage that changes text: the new text's own hash and size, by what they replace.
CURRENT = {TEXT_HASH: pa.field("text_hash", pa.binary(16)), BYTES: pa.field("bytes", pa.int64()), WORDS: pa.field("words", pa.int64())}

Lists = npt.NDArray[np.int64]


def cuts(offsets: Lists, starts: Lists, stops: Lists) -> pa.Array:
    """Spans that put nothing in their place: of row i those from offsets[i] up to offsets[i + 1] (int64[n + 1])."""
    empty = pa.Array.from_buffers(pa.string(), len(starts), [None, pa.py_buffer(np.zeros(len(starts) + 1, np.int32)), pa.py_buffer(b"")])
    values = pa.StructArray.from_arrays([pa.array(starts), pa.array(stops), empty], fields=list(SPAN))
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, type=SPANS)


def applied(text: pa.Array, spans: pa.Array) -> pa.Array:
    """The texts with their spans carried out: string or large_string as given, null where it was null."""
    if not pc.any(pc.greater(pc.list_value_length(spans), 0)).as_py():
        return text
    counts = np.asarray(pc.fill_null(pc.list_value_length(spans), 0).to_numpy(zero_copy_only=False), np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    flat = pc.list_flatten(spans)
    start, stop = (np.ascontiguousarray(flat.field(i).to_numpy(), np.int64) for i in (0, 1))
    new = pc.coalesce(flat.field(2), "")
    sizes = pc.sum(pc.binary_length(text)).as_py() or 0
    out = np.empty(max(0, sizes + (pc.sum(pc.binary_length(new)).as_py() or 0) - int((stop - start).sum())), np.uint8)
    ends = np.empty(len(text) + 1, np.int64)
    _native.spans_apply(text, offsets, start, stop, new, ends, out)
    wide = pa.Array.from_buffers(
        pa.large_string(), len(text), [text.is_valid().buffers()[1] if text.null_count else None, pa.py_buffer(ends), pa.py_buffer(out)]
    )
    return wide.cast(text.type)


def check(label: str, text: pa.Array, spans: pa.Array) -> None:
    """Raise StageError where a row's spans are not sorted, disjoint, inside the text and between characters."""
    flat = pc.list_flatten(spans)
    if not len(flat):
        return
    if flat.null_count or any(flat.field(i).null_count for i in range(3)):
        raise StageError(f"stage {label!r}: a span has a start, a stop and a text, none of them null")
    rows = pc.list_parent_indices(spans).to_numpy()
    start, stop = (np.asarray(flat.field(i).to_numpy(), np.int64) for i in (0, 1))
    width = np.int64 if pa.types.is_large_string(text.type) else np.int32
    offsets = np.frombuffer(text.buffers()[1], width)[text.offset : text.offset + len(text) + 1].astype(np.int64)
    size = np.diff(offsets)[rows]
    follows = np.zeros(len(rows), bool)
    follows[1:] = (rows[1:] == rows[:-1]) & (start[1:] < stop[:-1])
    wrong = (start < 0) | (stop < start) | (stop > size) | follows
    if not wrong.any():
        data = np.frombuffer(text.buffers()[2] or b"", np.uint8)
        for edge in (start, stop):
            inside = edge < size
            wrong[inside] |= (data[(offsets[rows] + edge)[inside]] & 0xC0) == 0x80
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise StageError(
            f"stage {label!r}: expected spans that are sorted, disjoint, within the text's {size[at]} bytes and between "
            f"characters, got {start[at]}..{stop[at]} in row {rows[at]} of a batch"
        )


def read_current(
    layout: Layout, part: Part, name: str, rewriters: Sequence[Sidecars], *, columns: Sequence[str] = (), text: bool = True,
    rows: npt.NDArray[np.int64] | None = None, batch_bytes: int = 4_000_000,
) -> Iterator[pa.RecordBatch]:  # fmt: skip
    """`read_part`, with the text as the stages whose sidecars are `rewriters` left it; `name` is the part's in the store."""
    batches = read_part(layout, part, columns=columns, text=text, rows=rows, batch_bytes=batch_bytes)
    if not text or not rewriters:
        yield from batches
        return
    stored = [_spans_of(sidecars, name) for sidecars in rewriters]
    seen = 0
    for batch in batches:
        index = pa.array(np.arange(seen, seen + batch.num_rows) if rows is None else rows[seen : seen + batch.num_rows])
        seen += batch.num_rows
        current = batch.column(TEXT)
        for spans in stored:
            if spans is not None:
                current = applied(current, spans.take(index))
        yield batch.set_column(batch.schema.get_field_index(TEXT), batch.schema.field(TEXT), current)


def _spans_of(sidecars: Sidecars, name: str) -> pa.Array | None:
    """A part's spans, for all of its rows; None where no row of the part reached the stage."""
    found = sidecars.read(name, [FIELD])
    return None if found is None else found[0][FIELD].combine_chunks()
