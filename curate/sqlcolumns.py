"""Users' SQL expressions over `docs`: which columns one reads, and whether it is one that a decision may rest on.

DuckDB's own parser and binder judge them, on an empty table, before any document is looked at. An expression may
read only the row that it is for, and must give the same value every time: no aggregate, window or subquery, no
clock and no chance.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from curate.errors import ConfigError, uninterrupted
from curate.params import did_you_mean

if TYPE_CHECKING:
    import duckdb

#: The table's name inside an expression; `docs.score` and `score` are the same.
TABLE = "docs"
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "* or COLUMNS(...)",
    "PARAMETER": "a parameter (? or $)",
    "POSITIONAL_REFERENCE": "a column by number (#1)",
    "DEFAULT": "DEFAULT",
}


def in_query(expression: str) -> str:
    """The expression as it may stand inside a query: in brackets, a trailing comment of its own closed."""
    return f"({expression}\n)"


def said_by(error: Exception) -> str:
    """DuckDB's message without the picture of our query around the user's words."""
    return " ".join(str(error).split("\n\nLINE ")[0].split("\n\tCandidate functions:")[0].split())


@lru_cache(maxsize=1)
def _database() -> duckdb.DuckDBPyConnection:
    """One empty database for all the questions; a cursor each, so that they do not meet."""
    with uninterrupted():
        import duckdb

    return duckdb.connect(":memory:", config={"threads": "1"})


@lru_cache(maxsize=256)
def columns_in(expression: str) -> tuple[str, ...]:
    """The columns that an expression reads, in order of appearance, each once.

    Raises ConfigError for what is no SQL expression, and for one that looks beyond its row or is not repeatable.
    """
    if not expression.strip():
        raise ConfigError("expected an SQL expression over docs, got nothing")
    with _database().cursor() as con:
        query = f"SELECT {in_query(expression)} FROM {TABLE}"
        answer = con.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0][0]
        parsed = json.loads(answer)
        if parsed.get("error"):
            raise ConfigError(f"expected an SQL expression over docs, got {expression!r}: {parsed.get('error_message')}")
        if len(parsed["statements"]) != 1 or not _plain(parsed["statements"][0]["node"]):
            raise ConfigError(f"expected one SQL expression over docs, got {expression!r}")
        found: list[str] = []
        called: list[str] = []
        _walk(parsed["statements"][0]["node"]["select_list"], expression, frozenset(), found, called)
        _check_functions(con, expression, called)
    return tuple(dict.fromkeys(found))


def _plain(node: Any) -> bool:
    """Whether the parsed query is our SELECT around one expression, and nothing that the text smuggled in."""
    rest = ("where_clause", "having", "sample", "qualify", "group_expressions", "modifiers")
    plain_from = node.get("from_table", {}).get("type") == "BASE_TABLE"
    return node["type"] == "SELECT_NODE" and len(node["select_list"]) == 1 and plain_from and not any(node.get(name) for name in rest)


def _walk(node: Any, expression: str, bound: frozenset[str], found: list[str], called: list[str]) -> None:
    """Collect columns and functions; `bound` are the parameters of the lambdas around the node."""
    if isinstance(node, list):
        for value in node:
            _walk(value, expression, bound, found, called)
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind in _REFUSED:
        raise ConfigError(f"the SQL expression {expression!r} holds {_REFUSED[kind]}; it may read one row of docs, by column names")
    if kind == "COLUMN_REF":
        names = node["column_names"]
        name = names[1] if names[0] == TABLE and len(names) > 1 else names[0]
        if name not in bound:
            found.append(name)
    if kind == "FUNCTION":
        called.append(str(node["function_name"]).lower())
    if kind == "LAMBDA" and (parameters := _parameters(node["lhs"])):
        _walk(node["expr"], expression, bound | parameters, found, called)
        return
    for value in node.values():
        _walk(value, expression, bound, found, called)


def _parameters(side: Any) -> frozenset[str]:
    """The names left of a lambda's arrow: one, or several in brackets; none where the arrow reads JSON."""
    if side.get("class") == "COLUMN_REF" and len(side["column_names"]) == 1:
        return frozenset(side["column_names"])
    if side.get("class") == "FUNCTION" and side.get("function_name") == "row":
        inner = [argument.get("expression", argument) for argument in side.get("arguments", side.get("children", []))]
        return frozenset(part["column_names"][0] for part in inner if part.get("class") == "COLUMN_REF")
    return frozenset()


def _check_functions(con: Any, expression: str, called: Sequence[str]) -> None:
    if not called:
        return
    rows = con.execute(
        "SELECT function_name, function_type, stability FROM duckdb_functions() WHERE function_name IN (SELECT unnest(?))", [list(called)]
    ).fetchall()
    for name, kind, stability in sorted(set(rows), key=str):
        if kind == "aggregate":
            raise ConfigError(f"the SQL expression {expression!r} holds the aggregate {name}(); it may read one row of docs, not all of them")
        if stability not in (None, "CONSISTENT"):
            raise ConfigError(f"the SQL expression {expression!r} holds {name}(), whose value changes from run to run; the same choice could not be made twice")


def check_expression(expression: str, columns: pa.Schema, result: Literal["DOUBLE", "BOOLEAN"] | None = None) -> tuple[str, ...]:
    """The columns that an expression reads, once DuckDB has bound it to columns of these types.

    `result` is what the value is for: DOUBLE, a number to rank by, or BOOLEAN, a condition. Raises ConfigError that says what does
    not fit: an unknown column or function, or types that do not go together.
    """
    with uninterrupted():
        import duckdb

    named = columns_in(expression)
    known = [name for name in columns.names if not name.startswith("__")]
    for name in named:
        if name not in known:
            raise ConfigError(f"there is no column {name!r} at this point{did_you_mean(name, known)}")
    empty = pa.schema([columns.field(name) for name in named] or [pa.field("none", pa.int8())]).empty_table()
    value = in_query(expression)
    with _database().cursor() as con:
        con.register(TABLE, empty)
        try:
            kind = str(con.sql(f"SELECT {value} AS value FROM {TABLE}").types[0])
        except duckdb.Error as error:
            raise ConfigError(f"the SQL expression {expression!r} does not work on these columns: {said_by(error)}") from error
    if named and kind == '"NULL"':  # a column of a pool that holds no value in any row: as good as any number's or condition's
        return named
    if result == "BOOLEAN" and kind != "BOOLEAN":
        raise ConfigError(f"expected true or false for each row, got {expression!r}, which is {kind}; compare it with something: ({expression.strip()}) = ...")
    if result == "DOUBLE" and (kind.endswith("]") or kind.split("(")[0] not in _NUMBERS):
        raise ConfigError(f"expected numbers to rank by, got {expression!r}, which is {kind}; compare or convert it in an SQL expression, such as ({expression.strip()} = 'value') or CAST({expression.strip()} AS DOUBLE)")
    return named
