"""How often and in which order documents are published, where a stage says so (`copies`, docs/stages.md).

    docs, a row for each document:       mix_repeats 2, mix_positions [3, 17], mix_stages [1, 2]
    publication, a row for each copy:    curate_mix_position 3, curate_mix_stage 1   ...   curate_mix_position 17, curate_mix_stage 2

Documents are counted in docs and the funnel, rows in the publication and what is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from curate.errors import ConfigError, DataError, InternalError
from curate.stage import BYTES, WORDS

if TYPE_CHECKING:
    from curate.plan import Node

#: Fields of a stage with `copies`: how often a document is taken (int64), and where its copies stand (list of int64, ascending).
REPEATS, POSITIONS = "repeats", "positions"


class Placed(msgspec.Struct, frozen=True):
    """What a publication's manifest says of its order: columns with a value for each row, and whether rows are sorted inside a group.

    `published[0]` is the row's place; the others are what rows are grouped by, outermost first. A group is shuffled unless `sorted`.
    """

    published: list[str]
    sorted: bool

    @property
    def in_order(self) -> bool:
        """Whether a reader should keep to the order of rows."""
        return self.sorted or len(self.published) > 1


class Copies(Placed, frozen=True):
    """The same with the columns of docs that it is made of: how often, and lists with one value for each copy."""

    repeats: str
    columns: list[str]


class Amount(msgspec.Struct, frozen=True):
    """What a publication holds: rows, and their bytes of text and words, copies counted; and of how many documents they are."""

    documents: int
    rows: int
    bytes: int
    words: int


def arranging(nodes: Sequence[Node]) -> Node | None:
    """The node that says how often and in which order documents are published; ConfigError where there are several."""
    found = [node for node in nodes if getattr(node.stage, "copies", None)]
    if len(found) > 1:
        raise ConfigError(f"{found[1].label!r} and {found[0].label!r} would both say how often and in which order documents are published; keep one of them")
    return found[0] if found else None


def said_by(node: Node | None) -> Copies | None:
    """What a node says of copies."""
    if node is None:
        return None
    names: Mapping[str, str] = node.stage.copies
    return Copies([f"curate_{node.column(n)}" for n in names.values()], bool(getattr(node.stage, "sorted", False)), node.column(REPEATS), [node.column(n) for n in names])


def of_publication(folder: Path) -> Placed | None:
    """What the manifest of a publication says of its order; None where it has none."""
    try:
        return msgspec.convert(msgspec.json.decode((folder / "manifest.json").read_bytes()).get("copies"), Placed | None)
    except (OSError, AttributeError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{folder / 'manifest.json'}: expected the manifest of a publication, got: {error}; publish again") from error


def amount(wide: Path, copies: Copies, scratch: Path, threads: int) -> Amount:
    """Count the copies of the kept documents in the wide table."""
    with _kept(wide, copies, scratch, threads) as con:
        row = con.execute(
            f"SELECT count(*), coalesce(sum(len(places)), 0), coalesce(sum(len(places) * {BYTES}), 0), coalesce(sum(len(places) * {WORDS}), 0), count(*) FILTER (len(places) > 0) FROM kept"
        ).fetchall()[0]
    if row[0] != row[4]:
        raise InternalError(f"{row[0] - row[4]} kept documents have no place in {copies.columns[0]}; nothing was published")
    return Amount(*(int(number) for number in row[:4]))


def slices(wide: Path, copies: Copies, number: int, scratch: Path, threads: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Cut the places of the kept copies into `number` runs of about equal bytes: the first place of each run, and which it is.

    Two arrays of one length, ascending; a run without a copy has no entry.
    """
    with _kept(wide, copies, scratch, threads) as con:
        found = con.execute(
            f"""SELECT slice, min(place) AS first FROM
                (SELECT place, least({number - 1}, CAST((sum({BYTES}) OVER (ORDER BY place ROWS UNBOUNDED PRECEDING) - {BYTES}) * {number} // (sum({BYTES}) OVER () + 1) AS BIGINT)) AS slice
                 FROM (SELECT unnest(places) AS place, {BYTES} FROM kept)) GROUP BY slice ORDER BY slice"""
        ).fetchall()
    return np.array([first for _, first in found], np.uint64), np.array([slice for slice, _ in found], np.int64)


def shares(wide: Path, copies: Copies, source: str | None, scratch: Path, threads: int) -> list[tuple[int | None, str | None, int, int, int]]:
    """What the copies of the kept documents add up to by their outermost group and by source, in that order.

    Rows of (group, source, documents, copies, bytes); the group is None where there is none, and so is the source.
    """
    from curate.frame import quote

    named = f"CAST({quote(source)} AS VARCHAR)" if source else "NULL"
    group = f"unnest({quote(copies.columns[1])})" if len(copies.columns) > 1 else "NULL"
    with _kept(wide, copies, scratch, threads, f"{named} AS source, {group} AS grp, unnest({quote(copies.columns[0])}) AS place, doc") as con:
        found: list[tuple[int | None, str | None, int, int, int]] = con.execute(
            f"SELECT grp, source, count(DISTINCT doc), count(*), CAST(sum({BYTES}) AS BIGINT) FROM kept GROUP BY grp, source ORDER BY grp NULLS FIRST, source NULLS FIRST"
        ).fetchall()
    return found


def _kept(wide: Path, copies: Copies, scratch: Path, threads: int, columns: str | None = None) -> Any:
    """A connection with the view `kept`: the kept documents' places and sizes, or some columns and sizes."""
    from curate.docs import KEPT
    from curate.frame import connect, literal, quote

    con = connect(scratch, threads, "2GB")
    files = ", ".join(literal(str(file)) for file in sorted(wide.glob("docs-*.parquet")))
    con.execute(
        f"CREATE VIEW kept AS SELECT {columns or f'{quote(copies.columns[0])} AS places'}, coalesce({BYTES}, 0) AS {BYTES}, coalesce({WORDS}, 0) AS {WORDS} "
        f"FROM read_parquet([{files}], hive_partitioning = false) WHERE {KEPT}"
    )
    return con
