"""Exact de-duplication: of documents whose texts are equal, keep one, and name it at the others."""

from __future__ import annotations

import unicodedata
from typing import Literal

import msgspec
import pyarrow as pa

from curate import documents
from curate.errors import ConfigError
from curate.frame import Frame, quote
from curate.registry import register
from curate.stage import BYTES, IDENTITY, KEEP, REASON, TEXT, TEXT_HASH, Context


class DedupExactParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`keep: least` takes the least by (`priority`, identity, hash of the whole row): the same whatever the order.

    longest and best (by column `by`, largest first unless `order: asc`) come before that; `first` takes the first in
    input order and so depends on how the files are named and cut.
    """

    normalize: list[Literal["nfc", "case", "space"]] = []
    keep: Literal["least", "longest", "best", "first"] = "least"
    priority: str | None = None
    by: str | None = None
    order: Literal["asc", "desc"] = "desc"

    def __post_init__(self) -> None:
        if (self.keep == "best") != (self.by is not None):
            raise ConfigError("keep: best and by: COLUMN go together: by names what best is measured in")
        if self.keep == "first" and self.priority is not None:
            raise ConfigError("keep: first takes the first in input order, so priority would not be looked at; leave it out, or keep: least")


@register("dedup_exact")
class DedupExact:
    """Groups by the 128-bit xxh3 of the text, optionally normalised (NFC, lower case, white space collapsed)."""

    version = 1
    Params = DedupExactParams
    keyless_params = ("keep", "priority", "by", "order")
    unpublished = ("of",)  # null at every document that is kept

    def __init__(self, params: DedupExactParams, context: Context) -> None:
        self.params = params
        self._columns = context.columns
        self._hash = f"{context.label}_hash"

    def verbs(self) -> tuple[str, ...]:
        return ("apply", "finish") if self.params.normalize else ("finish",)

    def reads(self) -> list[str]:
        return [TEXT]

    def fields(self) -> pa.Schema:
        return pa.schema([("hash", pa.binary(16))])

    def apply(self, state: None, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts = [self._normal(text) for text in batch.column(0).to_pylist()]
        return pa.record_batch([documents.text_hashes(pa.array(texts, pa.large_string()))], names=["hash"])

    def _normal(self, text: str) -> str:
        steps = self.params.normalize
        if "nfc" in steps:
            text = unicodedata.normalize("NFC", text)
        if "case" in steps:
            text = text.lower()
        return " ".join(text.split()) if "space" in steps else text

    def finish_reads(self) -> list[str]:
        extra = [c for c in (self.params.priority, self.params.by) if c]
        return [IDENTITY, BYTES, self._hash if self.params.normalize else TEXT_HASH, *dict.fromkeys(extra)]

    def finish_fields(self) -> pa.Schema:
        return pa.schema([(KEEP, pa.bool_()), (REASON, pa.string()), ("of", pa.string()), ("copies", pa.int64())])

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        """Keep one document of every group of equal texts; the rows of every document, in order of doc."""
        value = quote(self._hash if self.params.normalize else TEXT_HASH)
        frame.con.execute(f"CREATE TABLE repeated AS SELECT {value} AS h, count(*) AS copies FROM pool GROUP BY 1 HAVING count(*) > 1")
        frame.con.execute(
            f"CREATE TABLE copies AS SELECT pool.*, {value} AS h, repeated.copies AS copies FROM pool JOIN repeated ON {value} = repeated.h"
        )
        order, ties = self._order(), ""
        if self.params.keep != "first" and self._tell_apart(frame, order):
            order, ties = f"{order}, row_hash, doc", "LEFT JOIN hashes USING (doc)"
        frame.con.execute(
            f"""CREATE TABLE chosen AS SELECT doc, copies, row_number() OVER (PARTITION BY h ORDER BY {order}) AS place,
                first_value({IDENTITY}) OVER (PARTITION BY h ORDER BY {order}) AS winner FROM copies {ties}"""
        )
        return frame.reader(
            """SELECT pool.doc AS doc, chosen.place IS NULL OR chosen.place = 1 AS keep,
                      CASE WHEN chosen.place > 1 THEN 'copy of another document' END AS reason,
                      CASE WHEN chosen.place > 1 THEN chosen.winner END AS of, coalesce(chosen.copies, 1) AS copies
               FROM pool LEFT JOIN chosen ON pool.doc = chosen.doc ORDER BY pool.doc"""
        )

    def _order(self) -> str:
        """The rule of which copy is kept, as an ORDER BY; what ties on it is told apart by the whole row."""
        keys: list[str] = []
        if self.params.keep == "first":
            return "doc"
        if self.params.keep == "longest":
            keys.append(f"{BYTES} DESC")
        if self.params.by:
            keys.append(f"{self._orderly(self.params.by)} {self.params.order.upper()} NULLS LAST")
        if self.params.priority:
            keys.append(f"{self._orderly(self.params.priority)} ASC NULLS LAST")
        return ", ".join([*keys, IDENTITY])

    def _orderly(self, name: str) -> str:
        """A column to order by: NaN is no number, so it comes last like null, and not first as the largest."""
        column = quote(name)
        known = self._columns.names
        floating = name in known and pa.types.is_floating(self._columns.field(name).type)
        return f"CASE WHEN isnan({column}) THEN NULL ELSE {column} END" if floating else column

    def _tell_apart(self, frame: Frame, order: str) -> bool:
        """Hash the whole rows of the copies that tie for the first place; False where none do."""
        tied = f"SELECT doc FROM (SELECT doc, h, rank() OVER (PARTITION BY h ORDER BY {order}) AS r FROM copies) WHERE r = 1 QUALIFY count(*) OVER (PARTITION BY h) > 1"
        if not frame.scalar(f"SELECT count(*) FROM ({tied})"):
            return False
        frame.add_row_hashes(f"{tied} ORDER BY doc", "hashes")
        return True
