"""What became of the documents of a run, stage by stage, with examples of each reason to look at."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from curate import randomness
from curate.catalog import OpenRun
from curate.docs import DROP_REASON, DROP_STAGE
from curate.stage import IDENTITY


@dataclass(frozen=True)
class Example:
    """A document that a stage dropped, or, with the stage `kept`, one that was kept."""

    stage: str
    reason: str | None
    identity: str
    file: str
    row: int
    text: str | None


def counts(run: OpenRun, *, by_source: bool = False) -> pa.Table:
    """stage, reason, (source,) documents, bytes, words, and for documents how many are left behind the stage.

    `left` is of all sources together: what the stage was shown, less all that it dropped. In the order of the stages.
    """
    source = "source, " if by_source else ""
    return run.arrow(
        f"""WITH dropped AS (SELECT position, sum(documents) AS gone FROM funnel WHERE stage <> 'kept' GROUP BY 1),
                 behind AS (SELECT position, (SELECT sum(documents) FROM funnel) - sum(gone) OVER (ORDER BY position) AS remaining FROM dropped)
            SELECT stage, reason, {source}sum(documents)::BIGINT AS documents, sum(bytes)::BIGINT AS bytes, sum(words)::BIGINT AS words,
                   any_value(remaining)::BIGINT AS "left"
            FROM funnel LEFT JOIN behind USING (position) GROUP BY position, stage, reason{", source" if by_source else ""}
            ORDER BY position, reason{", source" if by_source else ""}"""
    )


def examples(run: OpenRun, number: int = 10, *, seed: int = 0) -> list[Example]:
    """Up to `number` documents of each stage and reason, drawn by identity and seed: the same whatever the files' order."""
    stream = randomness.stream(seed, "funnel", "examples")
    drawn: list[tuple[int, str | None, str | None, str | None, str, int]] = []
    groups = run.arrow(f"SELECT DISTINCT {DROP_STAGE} AS stage, {DROP_REASON} AS reason FROM docs").to_pylist()
    places = {row["stage"]: row["position"] for row in run.arrow("SELECT DISTINCT stage, position FROM funnel").to_pylist()}
    with run.connection() as con:
        for group in sorted(groups, key=lambda g: (places[g["stage"] or "kept"], g["reason"] or "")):
            some = con.execute(
                f"SELECT doc, {IDENTITY}, file, row FROM docs WHERE {DROP_STAGE} IS NOT DISTINCT FROM ? AND {DROP_REASON} IS NOT DISTINCT FROM ?"
                f" ORDER BY md5_number({IDENTITY} || ?), {IDENTITY}, doc LIMIT ?",
                [group["stage"], group["reason"], f" {stream}", number],
            ).fetchall()
            drawn += [(doc, group["stage"], group["reason"], identity, file, row) for doc, identity, file, row in some]
    texts = run.texts([doc for doc, *_ in drawn])
    return [Example(stage or "kept", reason, identity or "", file, row, texts[doc]) for doc, stage, reason, identity, file, row in drawn]
