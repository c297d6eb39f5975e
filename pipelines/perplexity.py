"""Keep a band of documents by how surprising they are to a language model: the lowest, the middle, the highest.

Marion et al. 2023, When Less Is More: the middle half by perplexity of a good reference model served best; others keep the
lowest. Perplexity is exp of the mean loss, so the order is that of an `lm` stage's column, which this reads.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec
import pyarrow as pa

from curate import budget
from curate.errors import ConfigError
from curate.frame import Frame, quote
from curate.registry import register
from curate.stage import IDENTITY, KEEP, REASON, Context


class PerplexityParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`of` is the label of an `lm` stage before this one; `share` of the documents that have a loss stay."""

    of: str = "lm"
    band: Literal["low", "middle", "high"] = "middle"
    share: str = "50%"
    by_length: bool = False

    def __post_init__(self) -> None:
        self.fraction()

    def fraction(self) -> Decimal:
        """The share, exactly."""
        try:
            found = budget.parse(self.share).share
        except ConfigError:
            found = None
        if found is None:
            raise ConfigError(f"expected share as a percentage from 0% to 100%, such as 50%, got {self.share!r}")
        return found


@register("perplexity")
class Perplexity:
    """Adds `perplexity_quantile`: the share of documents that are less surprising, in [0, 1), within one length if asked."""

    version = 1
    Params = PerplexityParams

    def __init__(self, params: PerplexityParams, context: Context) -> None:
        self.params = params

    def finish_reads(self) -> list[str]:
        return [IDENTITY, self.params.of, f"{self.params.of}_tokens"]

    def finish_fields(self) -> pa.Schema:
        return pa.schema([(KEEP, pa.bool_()), (REASON, pa.string()), ("quantile", pa.float64())])

    def finish(self, frame: Frame) -> pa.RecordBatchReader:
        """Of n documents floor(share x n) stay; ties by identity, then by a hash of the row."""
        loss, tokens = quote(self.params.of), quote(f"{self.params.of}_tokens")
        bucket = f"floor(log2({tokens}))::BIGINT" if self.params.by_length else "0"
        frame.con.execute(f"CREATE TABLE known AS SELECT doc, {IDENTITY} AS identity, {loss} AS loss, {bucket} AS bucket FROM pool WHERE {loss} IS NOT NULL")
        frame.add_row_hashes("SELECT doc FROM (SELECT doc, count(*) OVER (PARTITION BY loss, identity) AS n FROM known) WHERE n > 1", "tied")
        fraction = self.params.fraction()
        over, under = fraction.as_integer_ratio()
        first = {"low": "0", "high": "n - stay", "middle": "(n - stay) // 2"}[self.params.band]
        return frame.reader(
            f"""WITH ranked AS (
                    SELECT known.doc AS doc, count(*) OVER (PARTITION BY bucket) AS n,
                           row_number() OVER (PARTITION BY bucket ORDER BY loss, identity, row_hash, known.doc) - 1 AS place
                    FROM known LEFT JOIN tied ON known.doc = tied.doc),
                banded AS (SELECT doc, n, place, n * {over} // {under} AS stay FROM ranked),
                placed AS (SELECT doc, n, place, stay, {first} AS lowest FROM banded)
                SELECT pool.doc AS doc, coalesce(place >= lowest AND place < lowest + stay, false) AS keep,
                       CASE WHEN place IS NULL THEN 'no perplexity' WHEN place < lowest THEN 'below the band'
                            WHEN place >= lowest + stay THEN 'above the band' END AS reason,
                       place / n AS quantile
                FROM pool LEFT JOIN placed ON pool.doc = placed.doc ORDER BY pool.doc"""
        )
