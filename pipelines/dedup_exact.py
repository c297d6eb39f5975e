"""Exact de-duplication: of documents whose texts are equal, keep one, and name it at the others."""

from __future__ import annotations

import unicodedata
from typing import Literal

import msgspec
import pyarrow as pa

from curate import documents
from curate.errors import ConfigError
from curate.frame import Frame, quote
from curate.pipelines import against, keep_rule
from curate.registry import register
from curate.stage import IDENTITY, KEEP, REASON, TEXT, TEXT_HASH, Context
from curate.textview import column_text


class DedupExactParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`normalize` is done before texts, or a column, are compared; the rest is the rule of which copy stays (keep_rule.py)."""

    normalize: list[Literal["nfc", "case", "space"]] = []
    keep: keep_rule.Keep = "least"
    priority: str | None = None
    by: str | None = None
    order: Literal["asc", "desc"] = "desc"
    against: list[str] = []
    column: str | None = None

    def __post_init__(self) -> None:
        keep_rule.check(self)
        if self.column is not None and self.against:
            raise ConfigError("against compares texts: what was published has no column of this pool; leave column out, or against")


@register("dedup_exact")
class DedupExact:
    """Groups by the 128-bit xxh3 of the text, or of a column, optionally normalised (NFC, lower case, white space collapsed)."""

    version = 1
    Params = DedupExactParams
    keyless_params = ("keep", "priority", "by", "order", "against")
    usually_drops = ("the pool was de-duplicated before, or each text carries something of its own (an id, a date)", ("dedup_exact", "minhash"))
    unpublished = ("of", *against.FIELDS.names)  # null at every document that is kept

    def __init__(self, params: DedupExactParams, context: Context) -> None:
        self.params = params
        self._columns = context.columns
        self._hash = f"{context.label}_hash"
        self._hashes = bool(params.normalize) or params.column is not None  # otherwise the program's hash of the text is enough
        self._dropped: int | None = None  # for what was published before

    def verbs(self) -> tuple[str, ...]:
        return ("apply", "finish") if self._hashes else ("finish",)

    def reads(self) -> list[str]:
        return [self.params.column or TEXT]

    def fields(self) -> pa.Schema:
        return pa.schema([("hash", pa.binary(16))])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = [self._normal(text) for text in column_text(batch.column(0)).to_pylist()]
        return pa.record_batch([documents.text_hashes(pa.array(texts, pa.large_string()))], names=["hash"])

    def _normal(self, text: str) -> str:
        steps = self.params.normalize
        if "nfc" in steps:
            text = unicodedata.normalize("NFC", text)
        if "case" in steps:
            text = text.lower()
        return " ".join(text.split()) if "space" in steps else text

    def finish_reads(self) -> list[str]:
        return [self._hash if self._hashes else TEXT_HASH, *keep_rule.reads(self.params)]

    def finish_fields(self) -> pa.Schema:
        fields = pa.schema([(KEEP, pa.bool_()), (REASON, pa.string()), ("of", pa.string()), ("copies", pa.int64())])
        return pa.schema([*fields, *(against.FIELDS if self.params.against else ())])

    def reference_fields(self) -> pa.Schema:
        """What is kept of a published document."""
        return self.fields()

    def reference(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._hashes:
            return self.apply(None, batch)
        return pa.record_batch([documents.text_hashes(batch.column(0))], names=["hash"])

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        """Keep one document of every group of equal texts; the rows of every document, in order of doc."""
        value = quote(self._hash if self._hashes else TEXT_HASH)
        frame.con.execute(f"CREATE TABLE repeated AS SELECT {value} AS h, count(*) AS copies FROM pool GROUP BY 1 HAVING count(*) > 1")
        frame.con.execute(
            f"CREATE TABLE copies AS SELECT pool.*, {value} AS h, repeated.copies AS copies FROM pool JOIN repeated ON {value} = repeated.h"
        )
        keep_rule.rank(frame, self.params, self._columns, "h")
        before, columns, join = "false", "", ""
        if self.params.against:
            self._load(frame, value)
            before, columns = "settled.doc IS NOT NULL", ", settled.against, settled.against_run"
            join = "LEFT JOIN settled ON pool.doc = settled.doc"
        return frame.reader(
            f"""SELECT pool.doc AS doc, NOT {before} AND (ranked.place IS NULL OR ranked.place = 1) AS keep,
                      CASE WHEN {before} THEN 'copy of a document that was published before'
                           WHEN ranked.place > 1 THEN 'copy of another document' END AS reason,
                      CASE WHEN ranked.place > 1 AND NOT {before} THEN ranked.winner END AS of, coalesce(copies.copies, 1) AS copies{columns}
               FROM pool LEFT JOIN ranked ON pool.doc = ranked.doc LEFT JOIN copies ON pool.doc = copies.doc {join} ORDER BY pool.doc"""
        )

    def _load(self, frame: Frame, value: str) -> None:
        """Make `settled`: the documents whose text was published before, and where."""
        against.load(frame, lambda batch: [batch.column("hash")], self.fields())
        frame.con.execute(
            f"""CREATE TABLE settled AS SELECT pool.doc, p.{IDENTITY} AS against, p.name AS against_run
                FROM pool JOIN (SELECT * FROM published WHERE number IN (SELECT min(number) FROM published GROUP BY hash)) p ON {value} = p.hash"""
        )
        self._dropped = frame.scalar("SELECT count(*) FROM settled")

    def notes(self) -> list[str]:
        """How many documents were published before."""
        return [] if self._dropped is None else [f"{self._dropped:,} documents are copies of one that was published before"]
