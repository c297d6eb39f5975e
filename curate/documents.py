"""The passes that every run begins with: what each document is, whether it was taken down, and whether a test holds it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate import ngrams, randomness
from curate.corpus import BAD
from curate.registry import register
from curate.stage import BYTES, IDENTITY, KEY, TEXT, TEXT_HASH, WORDS, Context

QUARANTINED = "curate_quarantined"
QUARANTINE = "quarantine"  # the label of this stage, and what the funnel calls its drops
OVERLAP = "overlap"
TAKEDOWN = "takedown"


class DocumentsParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the text and the id come from; part of the key of all that reads text."""

    text: str
    view: str
    text_columns: list[str]
    id: str | None
    quarantine: bool
    checked: list[str] = []  # with quarantine: columns read here so that what is bad in them is set aside now, not found later


@register("documents")
class Documents:
    """Adds identity, key, text hash, bytes and words; sets bad rows aside where the corpus asks for that."""

    version = 1
    internal = True
    Params = DocumentsParams

    def __init__(self, params: DocumentsParams, context: Context) -> None:
        self.params = params

    def verbs(self) -> Sequence[str]:
        return ("apply", "judge") if self.params.quarantine else ("apply",)

    def reads(self) -> list[str]:
        return list(dict.fromkeys([TEXT, BAD, *([self.params.id] if self.params.id else []), *self.params.checked]))

    def fields(self) -> pa.Schema:
        return pa.schema(
            [
                (IDENTITY, pa.string()),
                (KEY, pa.uint64()),
                (TEXT_HASH, pa.binary(16)),
                (BYTES, pa.int64()),
                (WORDS, pa.int64()),
                (QUARANTINED, pa.string()),
            ]
        )

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        text, bad = batch.column(TEXT), batch.column(BAD)
        hashes = text_hashes(text)
        identity = (
            hex_of(hashes) if self.params.id is None else batch.column(self.params.id).cast(pa.string())
        )
        sizes, words = ngrams.text_stats(text)
        columns = [
            identity,
            pa.array(randomness.keys_of(identity)),
            hashes,
            pa.array(sizes),
            pa.array(words),
            bad,
        ]
        if bad.null_count < len(bad):
            fine = pc.is_null(bad)
            columns = [pc.if_else(fine, column, pa.scalar(None, column.type)) for column in columns[:5]] + [
                bad
            ]
        return pa.record_batch(columns, schema=self.fields())

    def judge_reads(self) -> list[str]:
        return [QUARANTINED]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        reason = batch.column(QUARANTINED)
        return pc.is_null(reason), reason


def text_hashes(text: pa.Array) -> pa.Array:
    """xxh3-128 of each text's UTF-8, as fixed_size_binary(16); null is hashed as the empty text."""
    hasher = xxhash.xxh3_128_digest
    offsets, data = _buffers(text)
    joined = b"".join([hasher(data[a:b]) for a, b in pairwise(offsets)])
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(text), [None, pa.py_buffer(joined)])


def hex_of(hashes: pa.Array) -> pa.Array:
    """32 hex digits for each 16-byte hash."""
    joined = (
        hashes.buffers()[1]
        .to_pybytes()[hashes.offset * 16 : (hashes.offset + len(hashes)) * 16]
        .hex()
        .encode()
    )
    offsets = np.arange(len(hashes) + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(len(hashes), pa.py_buffer(offsets), pa.py_buffer(joined))


def _buffers(text: pa.Array) -> tuple[list[int], memoryview]:
    kind = np.int64 if pa.types.is_large_string(text.type) else np.int32
    _, offsets, data = text.buffers()
    if offsets is None or len(text) == 0:
        return [0] * (len(text) + 1), memoryview(b"")
    return np.frombuffer(offsets, kind)[text.offset : text.offset + len(text) + 1].tolist(), memoryview(
        data or b""
    )


class TakedownParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hash of the list of what was taken down, so that a longer list is another key."""

    listed: str


@register(TAKEDOWN)
class Takedown:
    """Drops documents that `curate takedown` named, and every document whose text equals one of theirs.

    The state, written by the runner, has a row per named document: `identity`, `hash` of its text where that was known, and
    whether it was `named` or equals one that was. By both: a text that comes back under another name is dropped, and so is a changed text under the old name.
    """

    version = 1
    internal = True
    Params = TakedownParams
    unlisted = unpublished = ("why",)  # it says what the verdict's reason says

    def __init__(self, params: TakedownParams, context: Context) -> None:
        pass

    def reads(self) -> list[str]:
        return [IDENTITY, TEXT_HASH]

    def fields(self) -> pa.Schema:
        return pa.schema([("why", pa.string())])

    def apply(self, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        named, equal = taken(state, batch.column(0), batch.column(1))
        why = pc.if_else(named, "taken down", pc.if_else(equal, "equals a text taken down", pa.scalar(None, pa.string())))
        return pa.record_batch([why], names=["why"])

    def judge_reads(self) -> list[str]:
        return [f"{TAKEDOWN}_why"]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        return pc.is_null(batch.column(0)), batch.column(0)


def taken(listed: pa.Table, identity: pa.Array, hashes: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Which documents a list of takedowns names, and which are in it for their text (bool each, never null)."""
    texts, is_named = listed["hash"].combine_chunks().drop_null(), listed["named"]
    named = pc.is_in(identity, listed["identity"].filter(is_named).combine_chunks())
    others = pc.is_in(identity, listed["identity"].filter(pc.invert(is_named)).combine_chunks())
    return named, pc.or_(others, pc.and_(pc.is_valid(hashes), pc.is_in(hashes, texts)))


class OverlapParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hash of the targets' documents, so that changed targets are another key."""

    targets: str


@register(OVERLAP)
class Overlap:
    """Names the target split that holds a pool document too, and drops the pool's copy of a test or tuning document.

    The state, written by the runner, has a row per target document: `hash`, `place` ("test of maths").
    """

    version = 1
    internal = True
    Params = OverlapParams

    def __init__(self, params: OverlapParams, context: Context) -> None:
        self._ready: tuple[Any, pa.Array, pa.Array] | None = None

    def reads(self) -> list[str]:
        return [TEXT_HASH]

    def fields(self) -> pa.Schema:
        return pa.schema([("place", pa.string())])

    def apply(self, state: pa.Table, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._ready is None or self._ready[0] is not state:
            self._ready = (state, state["hash"].combine_chunks(), state["place"].combine_chunks())
        _, hashes, places = self._ready
        found = pc.index_in(batch.column(TEXT_HASH), hashes)
        return pa.record_batch([places.take(found)], names=["place"])

    def judge_reads(self) -> list[str]:
        return [f"{OVERLAP}_place"]

    def judge(self, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        place = batch.column(0)
        held_out = pc.fill_null(
            pc.or_(pc.starts_with(place, "test "), pc.starts_with(place, "tuning ")), False
        )
        reason = pc.if_else(
            held_out,
            pc.binary_join_element_wise("equals a document of the", place, " "),
            pa.scalar(None, pa.string()),
        )
        return pc.invert(held_out), reason
