"""The hash of a whole row: for any type of column, and of content alone."""

import datetime
from decimal import Decimal

import pyarrow as pa

from curate.rowhash import of_rows


def test_rows_are_told_apart_by_content_and_not_by_the_order_of_columns() -> None:
    table = pa.table({"a": [1, 1, 2], "b": ["x", "y", "x"]})
    hashes = of_rows(table)
    assert len(set(hashes)) == 3
    assert of_rows(table.select(["b", "a"])) == hashes
    assert of_rows(table.take([2, 0])) == [hashes[2], hashes[0]]


def test_every_type_that_a_pool_may_have_is_hashed() -> None:
    moment = datetime.datetime(2026, 11, 21, 5, 7)
    columns = {
        "ns": pa.array([1_700_000_000_000_000_001, 1], pa.timestamp("ns")),
        "us": pa.array([moment, None], pa.timestamp("us", "UTC")),
        "time": pa.array([1, 2], pa.time64("ns")),
        "span": pa.array([1, 2], pa.duration("ns")),
        "decimal": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
        "bytes": pa.array([b"\xff", None], pa.binary()),
        "nested": pa.array([[{"t": 1}], []], pa.list_(pa.struct([("t", pa.timestamp("ns"))]))),
        "coded": pa.array(["x", "y"]).dictionary_encode(),
    }
    for name, column in columns.items():
        hashes = of_rows(pa.table({name: column}))
        assert len(set(hashes)) == 2, name


def test_a_column_that_begins_with_two_underscores_is_ours_and_not_the_rows() -> None:
    assert of_rows(pa.table({"a": [1], "__text__": ["x"]})) == of_rows(pa.table({"a": [1]}))
