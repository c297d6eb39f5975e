"""Guards: what a run did that is seldom meant. They warn, each with the number, the likely cause and the switch.

All of them look at the finished wide table and at its funnel, so they say the same for one worker or eight, and for a
run that computed nothing. They decide nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow.compute as pc

from curate.documents import TAKEDOWN
from curate.errors import ConfigError
from curate.frame import connect, literal, quote
from curate.ngrams import text_stats
from curate.plan import Node
from curate.stage import BYTES, KEEP, TEXT

if TYPE_CHECKING:
    from curate.docs import Wide
    from curate.runner import Run

#: A stage that saw fewer documents than this has no share worth a word.
LEAST = 20
#: The best of a selection are its best 1 %, the shortest its shortest tenth. Of the best 1 % of two public pools
#: (instructions, web) for three targets so many are among the shortest tenth: zipfit 0.000 each time; scores that forget
#: to put compressed bytes in proportion to the length, or do it twice, 1.000; compressed bytes saved in proportion to
#: compressed bytes with the container's own among them 0.34 to 0.98. DSIR 0.00 to 0.61 and 0.82 to 0.96: a summed log
#: weight falls with length by what it is, so it says nothing of a fault, and log weights are not looked at.
BEST_SHARE, SHORTEST = 100, 10
#: Documents that a selection must have to choose from: the best 1 % of fewer are too few to judge by.
ELIGIBLE = 2_000


class GuardsSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to warn; None is off.

    max_drop            a stage that drops more than this share of the documents it saw
    no_drop_documents   a stage that usually drops, and dropped none of more than so many
    shortest_best       a selection of whose best 1 % at least this share is among the shortest tenth it chose from
    """

    max_drop: float | None = 0.95
    no_drop_documents: int | None = 1_000
    shortest_best: float | None = 0.5

    def __post_init__(self) -> None:
        for name in ("max_drop", "shortest_best"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"expected {name} above 0 and at most 1, or null, got {value}")
        if self.no_drop_documents is not None and self.no_drop_documents < 1:
            raise ConfigError(f"expected no_drop_documents of at least 1, or null, got {self.no_drop_documents}")


def check(run: Run, wide: Wide) -> list[str]:
    """What there is to warn of, in the order of the stages."""
    spec, found = run.recipe.guards, []
    seen = wide.documents
    dropped = _dropped(wide.funnel.to_pylist())
    had: set[str] = set()  # the stages that have dropped something, by name
    for node in run.nodes:
        reasons = dropped.get(node.label, {})
        count = sum(reasons.values())
        selects = bool(getattr(node.stage, "selects", False))
        if spec.max_drop is not None and not selects and node.label != TAKEDOWN and seen >= LEAST and count > spec.max_drop * seen:
            found.append(_too_many(node.label, count, seen, reasons))
        cause, unless = getattr(node.stage, "usually_drops", ("", ()))
        if spec.no_drop_documents is not None and cause and not count and seen > spec.no_drop_documents and not had & set(unless):
            found.append(_none(node.label, seen, cause))
        if spec.shortest_best is not None and selects and getattr(node.stage, "ranks", False):
            found += _shortest(run, wide, node, spec.shortest_best)
        seen -= count
        if count:
            had.add(node.stage.name)
    return found


def _dropped(funnel: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Documents by stage and reason."""
    found: dict[str, dict[str, int]] = {}
    for row in funnel:
        reasons = found.setdefault(row["stage"], {})
        reason = row["reason"] or "no reason given"
        reasons[reason] = reasons.get(reason, 0) + row["documents"]
    return found


def _too_many(label: str, count: int, seen: int, reasons: dict[str, int]) -> str:
    reason, most = min(reasons.items(), key=lambda item: (-item[1], item[0]))
    return (
        f"{label} dropped {count:,} of the {seen:,} documents that it saw ({count / seen:.1%}), {most:,} of them for {reason!r}; "
        "likely a setting in another unit than meant, or a column or view that is not the text; "
        "if it is meant: guards: {max_drop: null}, or a larger share"
    )


def _none(label: str, seen: int, cause: str) -> str:
    # a stage that drops 3 in 1,000 spares 1,000 documents with a chance of 0.05: none of them is news
    return f"{label} dropped none of the {seen:,} documents that it saw; likely {cause}; if it is meant: guards: {{no_drop_documents: null}}"


def _shortest(run: Run, wide: Wide, node: Node, share: float) -> list[str]:
    """Whether the best documents of a selection are its shortest, and the targets' are not."""
    keep, score, rank = (quote(node.column(name)) for name in (KEEP, "score", "rank"))
    docs = f"read_parquet({literal(_plain(str(wide.folder)) + '/docs-*.parquet')}, hive_partitioning = false)"
    shown = f"SELECT {BYTES} AS size, {rank} AS rank FROM {docs} WHERE {keep} IS NOT NULL AND {score} IS NOT NULL"
    with connect(run.scratch, run.workers, "2GB") as con:
        eligible, kept = con.execute(f"SELECT count(*), count(rank) FROM ({shown})").fetchall()[0]
        best = min(-(-eligible // BEST_SHARE), kept)
        if eligible < ELIGIBLE or best < LEAST:
            return []
        # of documents of equal length the one in the middle says where they lie; whole numbers only
        short, bound = con.execute(
            f"""WITH shown AS ({shown}), sizes AS (SELECT size, count(*) AS n FROM shown GROUP BY size),
                     places AS (SELECT size, {SHORTEST} * (2 * sum(n) OVER (ORDER BY size) - n) <= 2 * {eligible} AS short FROM sizes)
                SELECT count(*) FILTER (short), (SELECT coalesce(max(size), 0) FROM places WHERE short)
                FROM shown JOIN places USING (size) WHERE rank <= {best}"""
        ).fetchall()[0]
    if short < share * best or _guides_are_short(run, bound):
        return []
    return [
        f"{short:,} of the {best:,} best documents of {node.label} are among the shortest tenth that it chose from (up to {bound:,} bytes); "
        "likely the score falls with length for its own sake, as compression scores do that are not put in proportion to it; "
        f"look at {node.label}_score beside {BYTES}, and filter by length first; if it is meant: guards: {{shortest_best: null}}"
    ]


def _guides_are_short(run: Run, bound: int) -> bool:
    """Whether half of the documents of some target are as short: then short ones are what is asked for."""
    for splits in run.targets.splits.values():
        sizes = sorted(int(n) for chunk in splits["guide"][TEXT].chunks for n in text_stats(pc.fill_null(chunk, ""))[0])
        if sizes and sizes[len(sizes) // 2] <= bound:
            return True
    return False


def _plain(path: str) -> str:
    from curate.catalog import plain

    return plain(path)
