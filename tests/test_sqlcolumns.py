from __future__ import annotations

import pyarrow as pa
import pytest

from curate.errors import ConfigError
from curate.sqlcolumns import check_expression, columns_in

SCHEMA = pa.schema(
    [("a", pa.int64()), ("b", pa.float64()), ("lang", pa.string()), ("my score", pa.float64()), ('q"x', pa.int8()),
     ("meta", pa.struct([("x", pa.int64())])), ("tags", pa.list_(pa.string())), ("d", pa.decimal128(10, 2)),
     ("coded", pa.dictionary(pa.int32(), pa.string()))]
)  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "columns"),
    [
        ("a + b * a", ("a", "b")),
        ("1", ()),
        ("docs.a", ("a",)),
        ('"my score" * 2', ("my score",)),
        ('"q""x"', ('q"x',)),
        ("meta.x", ("meta",)),
        ("docs.meta.x + meta.x", ("meta",)),
        ("meta['x']", ("meta",)),
        ("CASE WHEN a > 1 THEN b ELSE -b END", ("a", "b")),
        ("a IS NOT NULL AND NOT (b BETWEEN 1 AND a)", ("a", "b")),
        ("len(list_filter(tags, lambda t: t = lang))", ("tags", "lang")),
        ("len(list_filter(tags, lambda t, i: i < a))", ("tags", "a")),
        ("len([t FOR t IN tags IF t <> lang])", ("tags", "lang")),
        ("a -- a comment\n+ b", ("a", "b")),
        ("a + b -- a comment at the end", ("a", "b")),
        ("lang = 'a column named b'", ("lang",)),
        ("d > 1", ("d",)),
        ("coded = 'x'", ("coded",)),
        ("greatest(a, b)", ("a", "b")),
    ],
)
def test_the_columns_of_an_expression_are_those_it_reads(expression: str, columns: tuple[str, ...]) -> None:
    assert columns_in(expression) == columns
    assert check_expression(expression, SCHEMA) == columns


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "got nothing"),
        (" \n", "got nothing"),
        ("a +", "expected an SQL expression over docs"),
        ("a) FROM docs --", "expected an SQL expression over docs"),
        ("a), (b", "expected one SQL expression"),
        ("a FROM docs", "expected an SQL expression over docs"),
        ("a; DROP TABLE docs", "expected an SQL expression over docs"),
        ("sum(a)", r"the aggregate sum\(\)"),
        ("a > avg(b)", r"the aggregate avg\(\)"),
        ("count(*)", r"the aggregate count_star\(\)"),
        ("row_number() OVER ()", "a window function"),
        ("rank() OVER (ORDER BY a)", "a window function"),
        ("a > (SELECT 1)", "a subquery"),
        ("a IN (SELECT 1)", "a subquery"),
        ("EXISTS (SELECT 1)", "a subquery"),
        ("*", r"\* or COLUMNS"),
        ("COLUMNS('a')", r"\* or COLUMNS"),
        ("a > ?", "a parameter"),
        ("a > $x", "a parameter"),
        ("#1", "a column by number"),
        ("random()", "changes from run to run"),
        ("a + RANDOM()", "changes from run to run"),
        ("now() > '2020-01-01'", "changes from run to run"),
        ("uuid() = lang", "changes from run to run"),
        ("t + 1", "no column 't'"),
        ("len(list_filter(tags, lambda t: t = lang)) + t", "no column 't'"),
        ("A + 1", "no column 'A'"),
        ("nope(a)", "does not work on these columns: Catalog Error"),
        ("a + lang", "does not work on these columns: Binder Error"),
        ("meta.y", "does not work on these columns: Binder Error"),
    ],
)
def test_what_looks_beyond_its_row_or_cannot_be_repeated_is_refused(expression: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_expression(expression, SCHEMA)


def test_the_result_must_be_what_it_is_used_for() -> None:
    assert check_expression("a > 1", SCHEMA, "BOOLEAN") == ("a",)
    assert check_expression("a > 1", SCHEMA, "DOUBLE") == ("a",)
    assert check_expression("d", SCHEMA, "DOUBLE") == ("d",)
    for expression in ("lang", "coded", "tags", "CAST(lang AS DATE)", "(a, b)", "[a]", "NULL", "meta"):
        with pytest.raises(ConfigError, match="expected numbers to rank by"):
            check_expression(expression, SCHEMA, "DOUBLE")
    for expression in ("a", "lang"):
        with pytest.raises(ConfigError, match="expected true or false"):
            check_expression(expression, SCHEMA, "BOOLEAN")


def test_a_message_has_duckdbs_words_and_not_the_query_around_the_users() -> None:
    with pytest.raises(ConfigError) as caught:
        check_expression("a + lang", SCHEMA)
    assert "SELECT" not in str(caught.value)
    assert "\n" not in str(caught.value)
