"""One type for each column of files that differ."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.corpus import TEXT, CorpusSpec, load_table, open_corpus
from curate.errors import DataError

STRUCT_A = pa.array([{"x": 1}], pa.struct([("x", pa.int32())]))
STRUCT_B = pa.array([{"y": "é", "x": 2}], pa.struct([("y", pa.string()), ("x", pa.int64())]))


@pytest.mark.parametrize(
    ("first", "second", "kind", "expected"),
    [
        (pa.array([1], pa.int8()), pa.array([2], pa.int64()), "int64", [1, 2]),
        (pa.array([1], pa.int64()), pa.array([0.5], pa.float32()), "double", [1.0, 0.5]),
        (pa.array([None], pa.null()), pa.array(["a"]), "string", [None, "a"]),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"], pa.large_string()), "large_string", ["a", "b"]),
        (pa.array(["a"], pa.string_view()), pa.array(["b"]), "string", ["a", "b"]),
        (STRUCT_A, STRUCT_B, "struct<x: int64, y: string>", [{"x": 1, "y": None}, {"x": 2, "y": "é"}]),
        (pa.array([[1]]), pa.array([[]], pa.list_(pa.null())), "list<item: int64>", [[1], []]),
    ],
)
def test_types_widen_to_hold_both_files(
    tmp_path: Path, first: pa.Array, second: pa.Array, kind: str, expected: list[object]
) -> None:
    for name, column in (("a.arrow", first), ("b.arrow", second)):
        table = pa.table({"text": ["t"], "v": column})
        with pa.ipc.new_file(tmp_path / name, table.schema) as writer:
            writer.write_table(table)
    table = load_table(["a.arrow", "b.arrow"], base=tmp_path)
    assert str(table.schema.field("v").type) == kind
    assert table.column("v").to_pylist() == expected


def test_a_number_that_the_common_type_cannot_hold_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": pa.array([2**64 - 1], pa.uint64())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["b"], "n": pa.array([-1], pa.int64())}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"a\.parquet"):
        load_table(["a.parquet", "b.parquet"], base=tmp_path)


def test_csv_columns_follow_files_that_have_types(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "code": ["x"], "n": [1]}), tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("text,code,n\nb,12,2.5\n")
    corpus = open_corpus(CorpusSpec(paths=["a.parquet", "b.csv"]), tmp_path)
    assert str(corpus.layout.schema.field("code").type) == "string"
    assert str(corpus.layout.schema.field("n").type) == "double"


def test_text_of_mixed_width_has_one_type_in_all_parts(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array(["a"], pa.large_string())}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"text": "b"}\n')
    table = load_table(["a.parquet", "b.jsonl"], base=tmp_path)
    assert table.schema.field(TEXT).type == pa.large_string()
    assert table.column(TEXT).to_pylist() == ["a", "b"]


def test_a_column_named_twice_in_one_file_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="'text' twice"):
        open_corpus(CorpusSpec(paths=["x.arrow"]), tmp_path)
