from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import ConfigError, DataError
from curate.pipelines.scorefile import ByFile, content_hash, find, read


def pairs(path: Path, **names: str) -> list[tuple[str, float | None]]:
    by = ByFile(file=path.name, column=names.pop("column", "s"), **names)
    table = read(by, find(by, path.parent))
    return list(zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_format_gives_the_same_ids_and_scores(tmp_path: Path) -> None:
    expected = [("007", 1.5), ("ü,\tz", -2.0), ("2020-01-01", None)]
    csv = written(tmp_path / "s.csv", 'x,id,s\n0,007,1.5\n0,"ü,\tz",-2\n0,2020-01-01,\n')
    tsv = written(tmp_path / "s.tsv", 'id\ts\n007\t1.5\n"ü,\tz"\t-2\n2020-01-01\t\n')
    jsonl = written(tmp_path / "s.jsonl", '{"id": "007", "s": 1.5}\n\n{"s": -2, "id": "ü,\\tz"}\n{"id": "2020-01-01", "s": null}\n')
    parquet = tmp_path / "s.parquet"
    pq.write_table(pa.table({"s": [1.5, -2.0, None], "id": ["007", "ü,\tz", "2020-01-01"]}), parquet)
    for path in (csv, tsv, jsonl, parquet):
        assert pairs(path) == expected, path.suffix


def test_numbers_serve_as_ids_as_they_are_written(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [7, 8], "s": [1, 2]}), tmp_path / "s.parquet")
    assert pairs(tmp_path / "s.parquet") == [("7", 1.0), ("8", 2.0)]
    assert pairs(written(tmp_path / "s.jsonl", '{"id": 7, "s": 1}\n{"id": 8, "s": 2}\n')) == [("7", 1.0), ("8", 2.0)]


def test_other_columns_can_be_named(tmp_path: Path) -> None:
    assert pairs(written(tmp_path / "s.csv", "key,a b\nx,3\n"), id="key", column="a b") == [("x", 3.0)]


@pytest.mark.parametrize(
    ("name", "text", "kind", "message"),
    [
        ("s.csv", "id,s\na,1\na,2\n", DataError, "expected each id once, got 'a' more than once .first in row 0"),
        ("s.csv", "id,s\na,many\n", DataError, "expected numbers in 's'"),
        ("s.csv", "id,t\na,1\n", ConfigError, "by.column: s.csv has no column 's'"),
        ("s.csv", "key,s\na,1\n", ConfigError, "by.id: s.csv has no column 'id'"),
        ("s.csv", "id,s\na\n", DataError, "expected a csv file of scores"),
        ("s.jsonl", '{"id": "a", "s": "many"}\n', DataError, "row 0: expected a number in 's', got 'many'"),
        ("s.jsonl", '{"id": "a", "s": true}\n', DataError, "row 0: expected a number"),
        ("s.jsonl", '{"id": "a", "s": 1}\n{"s": 1}\n', DataError, "row 1: expected an id in column 'id', got null"),
        ("s.jsonl", '{"id": "a", "s": 1}\n{oops\n', DataError, "line 2: expected a JSON object"),
        ("s.jsonl", "[1]\n", DataError, "row 0: expected an object"),
        ("s.jsonl", '{"id": "a", "t": 1}\n', ConfigError, "no row has a 's'"),
        ("s.parquet", "not parquet", DataError, "expected a parquet file of scores"),
        ("s.txt", "a 1", ConfigError, "expected a name that ends in .parquet"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_its_name_and_row(name: str, text: str, kind: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=message):
        pairs(written(tmp_path / name, text))


def test_a_missing_file_is_the_recipes_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a file, got nothing at"):
        find(ByFile(file="nowhere.csv", column="s"), tmp_path)


def test_the_content_alone_makes_the_hash(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a.csv", "id,s\na,1\n"), written(tmp_path / "b.csv", "id,s\na,1\n")
    assert content_hash(first) == content_hash(second)
    assert content_hash(written(first, "id,s\na,2\n")) != content_hash(second)
