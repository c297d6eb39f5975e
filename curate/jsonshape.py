"""The types of JSON columns, found from all rows and not from the first ones.

A `Shape` notes which kinds of value stand in a place; shapes of many files merge, then become Arrow types.
Where the kinds do not fit one Arrow type, the whole column is carried as JSON text:

    1, 2, null          -> int64
    1, 2.5              -> double
    "a", 7              -> JSON text: '"a"', '7'
    {"a": 1}, {"b": ""} -> struct<a: int64, b: string>
"""

from __future__ import annotations

from typing import Any, TypeAlias

import pyarrow as pa

BOOL, INT, WIDE, HUGE, FLOAT, STR, LIST, DICT = (1 << bit for bit in range(8))
_SCALARS = {str: STR, bool: BOOL, float: FLOAT}

# Beyond 2^53 a double no longer holds every integer, beyond 2^63 an int64 does not.
_EXACT_IN_DOUBLE = 1 << 53
_INT64 = 1 << 63

# An object with more different keys than this is a map, not a record: a struct of them would be mostly nulls.
MOST_KEYS = 200
# Deeper nesting is carried as text; Arrow's and DuckDB's own recursion stays far from its limits.
MOST_DEPTH = 32

Packed: TypeAlias = list[Any]


class Shape:
    """The kinds of value seen in one place, as a set of bits, with what was seen inside lists and objects."""

    __slots__ = ("fields", "item", "kinds")

    def __init__(self) -> None:
        self.kinds = 0
        self.item: Shape | None = None
        self.fields: dict[str, Shape] = {}

    def add(self, value: Any, depth: int = 0) -> None:
        """Note a value as orjson gives it."""
        if value is None:
            return
        kind = type(value)
        if kind in _SCALARS:
            self.kinds |= _SCALARS[kind]
        elif kind is int:
            if -_EXACT_IN_DOUBLE <= value <= _EXACT_IN_DOUBLE:
                self.kinds |= INT
            else:
                self.kinds |= WIDE if -_INT64 <= value < _INT64 else HUGE
        elif depth >= MOST_DEPTH:
            self.kinds |= LIST | DICT
        elif kind is list:
            self.kinds |= LIST
            if value:
                item = self.item = self.item or Shape()
                for element in value:
                    item.add(element, depth + 1)
        else:
            self.kinds |= DICT
            self._add_fields(value, depth)

    def _add_fields(self, value: dict[str, Any], depth: int) -> None:
        fields = self.fields
        if len(fields) > MOST_KEYS:
            return
        for key, element in value.items():
            field = fields.get(key)
            if field is None:
                field = fields[key] = Shape()
            field.add(element, depth + 1)

    def merge(self, other: Shape) -> None:
        """Add all that another shape has seen."""
        self.kinds |= other.kinds
        if other.item is not None:
            self.item = self.item or Shape()
            self.item.merge(other.item)
        for key, field in other.fields.items():
            self.fields.setdefault(key, Shape()).merge(field)

    def arrow_type(self) -> pa.DataType | None:
        """Return the Arrow type that holds every value seen exactly, or None if only JSON text does."""
        kinds = self.kinds
        if kinds == 0:
            return pa.null()
        if kinds == BOOL:
            return pa.bool_()
        if kinds == STR:
            return pa.string()
        if not kinds & ~(INT | WIDE):
            return pa.int64()
        if not kinds & ~(INT | FLOAT):
            return pa.float64()
        if kinds == LIST:
            inner = pa.null() if self.item is None else self.item.arrow_type()
            return None if inner is None else pa.list_(inner)
        if kinds == DICT and 0 < len(self.fields) <= MOST_KEYS:
            types = {key: field.arrow_type() for key, field in self.fields.items()}
            return None if None in types.values() else pa.struct(list(types.items()))
        return None

    def turn_keys(self) -> tuple[str, str] | None:
        """Return the names of the role and content fields if lists of turns were seen here, else None."""
        fields = self.item.fields if self.item is not None else {}
        for role, content in (("role", "content"), ("from", "value")):
            if role in fields and content in fields and fields[content].kinds & STR:
                return role, content
        return None

    def pack(self) -> Packed:
        """Return plain data that `unpack` makes the shape of again."""
        item = None if self.item is None else self.item.pack()
        return [self.kinds, item, {key: field.pack() for key, field in self.fields.items()}]

    @staticmethod
    def unpack(packed: Packed) -> Shape:
        shape = Shape()
        kinds, item, fields = packed
        shape.kinds = kinds
        shape.item = None if item is None else Shape.unpack(item)
        shape.fields = {key: Shape.unpack(field) for key, field in fields.items()}
        return shape


class RowShapes:
    """The shapes of the columns of rows that are JSON objects, in order of first appearance.

    Most rows of a file have the keys and the kinds of value of an earlier row; for them only the values
    whose kind does not say all (integers, lists, objects) are looked at.
    """

    def __init__(self) -> None:
        self.columns: dict[str, Shape] = {}
        self._seen: dict[tuple[Any, ...], list[tuple[str, Shape]]] = {}

    def add(self, row: dict[str, Any]) -> None:
        signature = (*row, *map(type, row.values()))
        look = self._seen.get(signature)
        if look is None:
            look = []
            for key, value in row.items():
                shape = self.columns.setdefault(key, Shape())
                shape.add(value)
                if type(value) in (int, list, dict):
                    look.append((key, shape))
            if len(self._seen) < 10_000:
                self._seen[signature] = look
            return
        for key, shape in look:
            value = row[key]
            if type(value) is int and -_EXACT_IN_DOUBLE <= value <= _EXACT_IN_DOUBLE:
                shape.kinds |= INT
            else:
                shape.add(value)
