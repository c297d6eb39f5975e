"""Which document of a group stays: one rule for all de-duplications, the same whatever the order of the input.

least     the least by (`priority`, identity, hash of the whole row)
longest   the longest, then as least; best: by column `by`, largest first unless `order: asc`, then as least
first     the first in input order, which depends on how the files are named and cut
"""

from __future__ import annotations

from typing import Literal, Protocol

import pyarrow as pa

from curate.errors import ConfigError
from curate.frame import Frame, quote
from curate.stage import BYTES, IDENTITY

Keep = Literal["least", "longest", "best", "first"]


class Rule(Protocol):
    """The settings of a stage that keeps one document of each group."""

    @property
    def keep(self) -> Keep: ...
    @property
    def priority(self) -> str | None: ...
    @property
    def by(self) -> str | None: ...
    @property
    def order(self) -> Literal["asc", "desc"]: ...


def check(rule: Rule) -> None:
    """Raise ConfigError for settings that contradict each other."""
    if (rule.keep == "best") != (rule.by is not None):
        raise ConfigError("keep: best and by: COLUMN go together: by names what best is measured in")
    if rule.keep == "first" and rule.priority is not None:
        raise ConfigError("keep: first takes the first in input order, so priority would not be looked at; leave it out, or keep: least")


def reads(rule: Rule) -> list[str]:
    """The columns that the rule looks at."""
    return list(dict.fromkeys([IDENTITY, BYTES, *(c for c in (rule.priority, rule.by) if c)]))


def rank(frame: Frame, rule: Rule, columns: pa.Schema, group: str) -> None:
    """Make `ranked(doc, place, winner, winner_doc)` of the table `copies`: 1 is the one of its `group` that stays.

    `copies` has doc, `group` and the columns of `reads`; `winner` is the identity of the one that stays.
    """
    order, ties = _order(rule, columns), ""
    if rule.keep != "first" and _tell_apart(frame, order, group):
        order, ties = f"{order}, row_hash, doc", "LEFT JOIN hashes USING (doc)"
    frame.con.execute(
        f"""CREATE TABLE ranked AS SELECT doc, row_number() OVER w AS place, first_value({IDENTITY}) OVER w AS winner,
            first_value(doc) OVER w AS winner_doc FROM copies {ties} WINDOW w AS (PARTITION BY {group} ORDER BY {order})"""
    )


def _order(rule: Rule, columns: pa.Schema) -> str:
    """The rule as an ORDER BY; what ties on it is told apart by the whole row."""
    keys: list[str] = []
    if rule.keep == "first":
        return "doc"
    if rule.keep == "longest":
        keys.append(f"{BYTES} DESC")
    if rule.by:
        keys.append(f"{_orderly(rule.by, columns)} {rule.order.upper()} NULLS LAST")
    if rule.priority:
        keys.append(f"{_orderly(rule.priority, columns)} ASC NULLS LAST")
    return ", ".join([*keys, IDENTITY])


def _orderly(name: str, columns: pa.Schema) -> str:
    """A column to order by: NaN is no number, so it comes last like null, and not first as the largest."""
    column = quote(name)
    floating = name in columns.names and pa.types.is_floating(columns.field(name).type)
    return f"CASE WHEN isnan({column}) THEN NULL ELSE {column} END" if floating else column


def _tell_apart(frame: Frame, order: str, group: str) -> bool:
    """Hash the whole rows of the copies that tie for the first place; False where none do."""
    tied = f"""SELECT doc FROM (SELECT doc, {group}, rank() OVER (PARTITION BY {group} ORDER BY {order}) AS r FROM copies)
               WHERE r = 1 QUALIFY count(*) OVER (PARTITION BY {group}) > 1"""
    if not frame.scalar(f"SELECT count(*) FROM ({tied})"):
        return False
    frame.add_row_hashes(f"{tied} ORDER BY doc", "hashes")
    return True
