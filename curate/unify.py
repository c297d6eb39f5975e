"""One schema for files whose columns differ in presence and in type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from curate.delimited import column_type
from curate.errors import DataError
from curate.filescan import reading
from curate.jsonl import JsonColumn
from curate.jsonshape import BOOL, FLOAT, HUGE, INT, STR, WIDE, Shape
from curate.textview import TextPlan, plain_array, plain_type, turn_keys

_SCALARS = BOOL | INT | WIDE | HUGE | FLOAT | STR


class FileColumns(NamedTuple):
    """The columns of one file, in order; only one of the three has any."""

    path: str
    arrow: pa.Schema | None = None
    json: Mapping[str, Shape] | None = None
    delimited: Mapping[str, int] | None = None

    def names(self) -> list[str]:
        if self.arrow is not None:
            return list(self.arrow.names)
        return list(self.json if self.json is not None else self.delimited or ())


class Unified(NamedTuple):
    """The corpus' columns without metadata, and how those that JSON files have are carried."""

    schema: pa.Schema
    json: dict[str, JsonColumn]


def column_names(files: Sequence[FileColumns]) -> list[str]:
    """Return the names of all columns in order of first appearance."""
    return list(dict.fromkeys(name for file in files for name in file.names()))


def turn_columns(files: Sequence[FileColumns]) -> dict[str, tuple[str, str]]:
    """Return the columns that hold lists of turns in some file, with a turn's names of role and content."""
    found: dict[str, tuple[str, str]] = {}
    for file in files:
        for name in file.names():
            keys = None
            if file.arrow is not None:
                keys = turn_keys(plain_type(file.arrow.field(name).type))
            elif file.json is not None:
                keys = file.json[name].turn_keys()
            if keys is not None:
                found.setdefault(name, keys)
    return found


def unify(files: Sequence[FileColumns], plan: TextPlan, labels: frozenset[str], *, strict: bool) -> Unified:
    """Find one type for each column.

    `labels` are the id and source columns, which become strings where files differ. Numbers widen as
    Arrow's permissive unification has it. Types that do not fit raise DataError naming both files; not so
    for the text column unless `strict`: there the rows of the wrong type are bad rows.
    """
    shapes: dict[str, Shape] = {}
    kinds: dict[str, int] = {}
    for file in files:
        for name, shape in (file.json or {}).items():
            shapes.setdefault(name, Shape()).merge(shape)
        for name, kind in (file.delimited or {}).items():
            kinds[name] = kinds.get(name, 0) | kind
    text = plan.columns[0] if plan.kind == "column" else None
    carried = {name: _json_column(shape, name == text, name in labels) for name, shape in shapes.items()}
    fields = []
    for name in column_names(files):
        lenient = name in labels or (name == text and not strict)
        found = _Type(pa.null(), "")
        written = None
        for file in files:
            if name not in file.names():
                continue
            if file.arrow is not None:
                found = _join(name, found, plain_type(file.arrow.field(name).type), file.path, lenient)
            elif file.json is not None:
                found = _join(name, found, carried[name].type, file.path, lenient)
            else:
                written = file.path
        if written is not None:
            as_string = name in plan.columns or name in labels or _is_string(found.type)
            kind = pa.string() if as_string else column_type(kinds[name])
            found = _join(name, found, kind, written, lenient)
        fields.append(pa.field(name, found.type))
    return Unified(pa.schema(fields), carried)


class _Type(NamedTuple):
    type: pa.DataType
    path: str


def _json_column(shape: Shape, is_text: bool, is_label: bool) -> JsonColumn:
    kind = shape.arrow_type()
    if kind is not None:
        return JsonColumn(kind, "typed")
    if is_text and shape.kinds & STR:
        return JsonColumn(pa.string(), "string")
    if is_label and not shape.kinds & ~_SCALARS:
        return JsonColumn(pa.string(), "scalar")
    return JsonColumn(pa.string(), "json")


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _join(name: str, have: _Type, kind: pa.DataType, path: str, lenient: bool) -> _Type:
    if have.type.equals(kind):
        return have if have.path else _Type(kind, path)
    try:
        both = [pa.schema([pa.field(name, have.type)]), pa.schema([pa.field(name, kind)])]
        joined = pa.unify_schemas(both, promote_options="permissive").field(0).type
        return _Type(joined, have.path if joined.equals(have.type) else path)
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        if lenient:
            return _Type(pa.string(), path)
        raise DataError(
            f"expected one type for column {name!r}, got {have.type} in {have.path} and {kind} in {path}; "
            "cast one of them, or leave one of the files out"
        ) from error


def conform(array: pa.Array, kind: pa.DataType, path: str) -> pa.Array:
    """Cast an array of a file to the corpus' type. Values fit, unless the unified type is the narrower."""
    array = plain_array(array)
    if array.type.equals(kind):
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    with reading(path):
        return array.cast(kind)
