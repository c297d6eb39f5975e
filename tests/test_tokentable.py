"""Sequences that another program tokenized."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import ConfigError, DataError
from curate.packed import labels_of
from curate.tokentable import TokenTable


def write(file: Path, **columns: list[object]) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


def test_rows_are_sequences_and_positions_their_documents(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", input_ids=[[7]], labels=[[7]], position_ids=[[0]], id=["last"])
    write(tmp_path / "a.parquet", input_ids=[[1, 2, 3, 4], [5, 6]], labels=[[-100, 2, -100, 4], [5, 6]], position_ids=[[0, 1, 0, 1], [0, 1]], id=["x", "y"])
    data = TokenTable(tmp_path)
    assert (len(data), data.sequence_length, data.vocab_size) == (3, 4, 8)
    assert [data.tokens(i).tolist() for i in range(3)] == [[1, 2, 3, 4], [5, 6], [7]]
    assert [data.starts(i).tolist() for i in range(3)] == [[0, 2], [0], [0]]
    assert labels_of(data, 0).tolist() == [2, -100, 4, -100]
    assert data.documents(0) == ["x", "x"]


def test_the_key_is_of_the_tokens_not_of_the_files(tmp_path: Path) -> None:
    one = TokenTable(write(tmp_path / "one.parquet", input_ids=[[1, 2], [3]]))
    other = tmp_path / "other"
    other.mkdir()
    write(other / "a.parquet", input_ids=[[1, 2]])
    write(other / "b.parquet", input_ids=[[3]])
    assert TokenTable(other).key == one.key
    assert TokenTable(write(tmp_path / "cut.parquet", input_ids=[[1], [2, 3]])).key != one.key


def test_slices_and_large_lists_read_from_their_offsets(tmp_path: Path) -> None:
    table = pa.table({"input_ids": pa.array([[9], [1, 2], [3]], pa.large_list(pa.int32()))}).slice(1)
    pq.write_table(table, tmp_path / "t.parquet")
    data = TokenTable(tmp_path / "t.parquet")
    assert [data.tokens(i).tolist() for i in range(len(data))] == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"text": ["a"]}, "expected a column input_ids, got text"),
        ({"input_ids": [[1], None]}, "lists of integers without nulls"),
        ({"input_ids": [["a"]]}, "lists of integers"),
        ({"input_ids": [[1], []]}, "row 1 has no tokens"),
        ({"input_ids": [[1, -2]]}, "tokens from 0 to 1, got -2"),
        ({"input_ids": [[1, 2]], "labels": [[1]]}, "labels as long as input_ids"),
    ],
)
def test_bad_tables_are_refused(columns: dict[str, list[object]], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        TokenTable(write(tmp_path / "t.parquet", **columns))


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Parquet file with input_ids"):
        TokenTable(tmp_path)


def test_labels_that_are_shifted_already_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", input_ids=[[4, 4], [1, 2, 3]], labels=[[4, 4], [2, 3, -100]])
    with pytest.raises(DataError, match="got 2 for the token 1 in row 1; labels that are shifted already"):
        TokenTable(file)
