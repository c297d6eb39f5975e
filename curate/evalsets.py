"""Evaluation sets that are read from files: their items, with question and answer apart where a set has both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curate.corpus import BAD, TEXT, load_table
from curate.errors import ConfigError
from curate.filenames import list_files


class EvalSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a set is: `files` (paths, folders, globs) and its texts.

    `question` and `answer` are columns, or templates over columns; a set without them has `text`. A row without an
    answer (null) has none to check.
    """

    files: list[str]
    text: str | None = None
    question: str | None = None
    answer: str | None = None

    def __post_init__(self) -> None:
        if not self.files:
            raise ConfigError("expected files to name at least one file, got none")
        if self.text is not None and (self.question is not None or self.answer is not None):
            raise ConfigError("expected text, or question and answer, got both")

    def sides(self) -> dict[str, str]:
        """What is read of each row: a side's name and its column or template."""
        named = {side: column for side, column in (("question", self.question), ("answer", self.answer)) if column is not None}
        return named or {"text": self.text or "text"}


@dataclass(frozen=True)
class Items:
    """All sets' items: a table of set, row (int64, from 0 in the set's files), side, text; and what names each set's content.

    `rows` counts a set's rows; `fingerprints` are 32 hex digits of its texts, sides and order, whatever files hold them.
    """

    table: pa.Table
    rows: dict[str, int]
    fingerprints: dict[str, str]

    def key(self) -> str:
        """Names the content of all sets."""
        return "; ".join(f"{name} {value}" for name, value in self.fingerprints.items())


def check_files(sets: Mapping[str, EvalSet], base: Path) -> None:
    """Raise ConfigError where a set's files are not there; reads nothing."""
    for name, spec in sets.items():
        try:
            list_files(spec.files, base, None)
        except ConfigError as error:
            raise ConfigError(f"sets.{name}.files: {error}") from error


def load(sets: Mapping[str, EvalSet], base: Path) -> Items:
    """Read all sets; ConfigError and DataError name the set."""
    tables, rows, prints = [], {}, {}
    for name, spec in sets.items():
        hasher = xxhash.xxh3_128()
        try:
            sides = {side: _texts(spec, column, base, may_lack=side == "answer" and spec.question is not None) for side, column in spec.sides().items()}
        except ConfigError as error:
            raise ConfigError(f"sets.{name}: {error}") from error
        rows[name] = max(map(len, sides.values()))
        for side, texts in sides.items():
            hasher.update(f"\x00{side}\x00".encode())
            for text in texts.to_pylist():
                hasher.update(b"\x01" if text is None else b"\x02" + text.encode() + b"\x00")
            number = pa.array(range(len(texts)), pa.int64())
            tables.append(pa.table({"set": pa.repeat(name, len(texts)), "row": number, "side": pa.repeat(side, len(texts)), "text": texts.cast(pa.large_string())}))
        prints[name] = hasher.hexdigest()
    table = pa.concat_tables(tables).combine_chunks()
    return Items(table.filter(pc.is_valid(table["text"])), rows, prints)


def _texts(spec: EvalSet, column: str, base: Path, *, may_lack: bool) -> pa.ChunkedArray:
    """A side's texts, in order; with `may_lack` null where there is none."""
    if not may_lack:
        return load_table(spec.files, base=base, text=column)[TEXT]
    table = load_table(spec.files, base=base, text=column, on_error="quarantine")
    return pc.if_else(pc.is_null(table[BAD]), table[TEXT], pa.scalar(None, table[TEXT].type))
