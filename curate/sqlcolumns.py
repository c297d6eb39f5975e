"""Which columns an SQL expression reads, as DuckDB's own parser sees it; nothing is run."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from curate.errors import ConfigError
from curate.frame import literal


@lru_cache(maxsize=256)
def columns_in(expression: str) -> tuple[str, ...]:
    """The names of the columns that an expression mentions, in order of appearance."""
    import duckdb

    query = f"SELECT ({expression}) FROM docs"
    with duckdb.connect(":memory:") as con:
        answer = con.execute(f"SELECT json_serialize_sql({literal(query)})").fetchall()[0][0]
    parsed = json.loads(answer)
    if parsed.get("error"):
        raise ConfigError(f"expected an SQL expression over docs, got {expression!r}: {parsed.get('error_message')}")
    statements = parsed["statements"]
    if len(statements) != 1 or len(statements[0]["node"]["select_list"]) != 1:
        raise ConfigError(f"expected one SQL expression over docs, got {expression!r}")
    found: list[str] = []
    _walk(statements[0]["node"]["select_list"], found)
    return tuple(dict.fromkeys(found))


def _walk(node: Any, found: list[str]) -> None:
    if isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            found.append(node["column_names"][-1] if node["column_names"][0] == "docs" else node["column_names"][0])
        if node.get("class") == "SUBQUERY":
            raise ConfigError("an SQL expression over docs may not hold a subquery")
        for value in node.values():
            _walk(value, found)
    elif isinstance(node, list):
        for value in node:
            _walk(value, found)
