"""A score that stands in a file of its own, to be joined to the documents by id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from curate.errors import ConfigError, DataError
from curate.params import did_you_mean

#: What `read` returns; the names cannot clash with a user's.
ID, SCORE = "__score_id__", "__score__"
SCHEMA = pa.schema([(ID, pa.string()), (SCORE, pa.float64())])
_ENDINGS = ("parquet", "csv", "tsv", "jsonl")


class ByFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the score is: a parquet, csv, tsv or jsonl file, its column, and the column with the documents' ids."""

    file: str
    column: str
    id: str = "id"


def find(by: ByFile, base: Path) -> Path:
    """The file, relative to `base`; ConfigError where it is not there or of no known kind."""
    path = base / by.file
    if not path.is_file():
        raise ConfigError(f"by.file: expected a file, got nothing at {path}")
    if path.suffix.lstrip(".") not in _ENDINGS:
        raise ConfigError(f"by.file: expected a name that ends in {', '.join('.' + e for e in _ENDINGS)}, got {path.name}")
    return path


def check(by: ByFile, path: Path) -> None:
    """Raise ConfigError where the file has no such columns, by its schema or header alone (jsonl has none)."""
    try:
        if path.suffix == ".parquet":
            _known(by, path, pq.read_schema(path).names)
        elif path.suffix in (".csv", ".tsv"):
            with pyarrow.csv.open_csv(path, parse_options=_parse(path)) as reader:
                _known(by, path, reader.schema.names)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"by.file: {path}: expected a {path.suffix.lstrip('.')} file of scores: {error}") from error


def _parse(path: Path) -> pyarrow.csv.ParseOptions:
    return pyarrow.csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",", newlines_in_values=True)


def content_hash(path: Path) -> str:
    """The hash of the file's bytes: a changed file is a new selection."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def read(by: ByFile, path: Path) -> pa.Table:
    """The file's ids (as text) and scores (float64, null where none), one row each.

    Raises ConfigError for a column that is not there, and DataError, with the row, for an unreadable file, a null
    or repeated id, or a score that is not a number. Ids of csv and jsonl are taken as written: 007 stays 007.
    """
    try:
        table = _columns(by, path)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise DataError(f"by.file: {path}: expected a {path.suffix.lstrip('.')} file of scores: {error}") from error
    ids, scores = _text(by, path, table.column(0)), _numbers(by, path, table.column(1))
    if ids.null_count:
        raise DataError(f"by.file: {path}, row {_first(pc.is_null(ids))}: expected an id in column {by.id!r}, got null")
    counts = pc.value_counts(ids.combine_chunks())
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        name = min(repeated.field("values").to_pylist())
        raise DataError(f"by.file: {path}: expected each id once, got {name!r} more than once (first in row {_first(pc.equal(ids, name))}); keep one row for each document")
    return pa.table([ids, scores], schema=SCHEMA)


def _columns(by: ByFile, path: Path) -> pa.Table:
    check(by, path)
    if path.suffix == ".parquet":
        return pq.read_table(path, columns=[by.id, by.column], partitioning=None).select([by.id, by.column])
    if path.suffix == ".jsonl":
        return _from_jsonl(by, path)
    convert = pyarrow.csv.ConvertOptions(include_columns=[by.id, by.column], column_types={by.id: pa.string(), by.column: pa.string()})
    return pyarrow.csv.read_csv(path, parse_options=_parse(path), convert_options=convert)


def _from_jsonl(by: ByFile, path: Path) -> pa.Table:
    ids: list[str | None] = []
    scores: list[Any] = []
    for number, row in enumerate(_rows(path)):
        if not isinstance(row, dict):
            raise DataError(f"by.file: {path}, row {number}: expected an object with {by.id!r} and {by.column!r}, got {type(row).__name__}")
        value, score = row.get(by.id), row.get(by.column)
        ids.append(value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode())
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
            raise DataError(f"by.file: {path}, row {number}: expected a number in {by.column!r}, got {score!r}")
        scores.append(None if score is None else float(score))
    if scores and all(score is None for score in scores):
        raise ConfigError(f"by.file: {path}: no row has a {by.column!r}")
    return pa.table([pa.array(ids, pa.string()), pa.array(scores, pa.float64())], names=["id", "score"])


def _rows(path: Path) -> Iterator[Any]:
    with open(path, "rb") as lines:
        for number, line in enumerate(lines):
            if line.strip():
                try:
                    yield msgspec.json.decode(line)
                except msgspec.DecodeError as error:
                    raise DataError(f"by.file: {path}, line {number + 1}: expected a JSON object: {error}") from error


def _known(by: ByFile, path: Path, names: list[str]) -> None:
    for setting, name in (("id", by.id), ("column", by.column)):
        if name not in names:
            raise ConfigError(f"by.{setting}: {path.name} has no column {name!r}{did_you_mean(name, names)}")


def _text(by: ByFile, path: Path, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(f"by.file: {path}: expected ids in {by.id!r}, got {column.type}: {error}") from error


def _numbers(by: ByFile, path: Path, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(column.type):
        column = pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), pa.scalar(None, pa.string()), pc.utf8_trim_whitespace(column))
    try:
        return column.cast(pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise DataError(f"by.file: {path}: expected numbers in {by.column!r}, got {column.type}: {error}") from error


def _first(mask: pa.ChunkedArray) -> int:
    return int(pc.index(mask, True).as_py())
