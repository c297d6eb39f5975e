"""Every format, from outside: the rows that were written are the rows that are read."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_writers import WRITERS, Rows
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.corpus import BAD, TEXT, Corpus, CorpusSpec, load_table, open_corpus, read_part
from curate.errors import DataError
from curate.readers import MOST_ROWS

ROWS: Rows = [
    {"id": 0, "source": "web", "score": 0.5, "text": "plain"},
    {"id": 1, "source": "books", "score": 1.25, "text": 'two\nlines, a comma and a "quote"'},
    {"id": 2, "source": "web", "score": -3.0, "text": ""},
    {"id": 3, "source": "web", "score": 7.0, "text": "é 漢字 🙂 \u2028 a line separator, \u0085 another"},
    {"id": 4, "source": "books", "score": 1e30, "text": "tab\there, carriage\rreturn"},
    {"id": 5, "source": "web", "score": 0.0, "text": " spaces at both ends "},
    {"id": 6, "source": "web", "score": 2.0, "text": '{"json": [1, 2]}'},
    {"id": 7, "source": "books", "score": 3.0, "text": "the last"},
]


def open_one(path: Path, **more: Any) -> Corpus:
    return open_corpus(CorpusSpec(paths=[path.name], **more), path.parent)


def read_all(corpus: Corpus, *columns: str, **how: Any) -> pa.Table:
    batches = [b for part in corpus.parts for b in read_part(corpus.layout, part, columns=columns, **how)]
    return pa.Table.from_batches(batches)


def texts(table: pa.Table) -> list[str | None]:
    found: list[str | None] = table.column(TEXT).to_pylist()
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_rows_that_were_written(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, ROWS)
    corpus = open_one(tmp_path / name)
    table = read_all(corpus, "id", "source", "score", "text")
    assert texts(table) == [row["text"] for row in ROWS]
    assert table.select(["id", "source", "score", "text"]).to_pylist() == ROWS
    assert table.column("score").to_pylist() == [row["score"] for row in ROWS]
    assert table.column("id").to_pylist() == list(range(8))
    assert table.column(BAD).null_count == 8
    assert sum(part.rows for part in corpus.parts) == 8


@pytest.mark.parametrize("name", WRITERS)
def test_one_row_is_read_from_every_format(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, ROWS[3:4])
    assert texts(read_all(open_one(tmp_path / name))) == [ROWS[3]["text"]]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("wanted", [[], [0], [7], [2, 3, 6], [0, 1, 2, 3, 4, 5, 6, 7], [1, 7]])
def test_reading_some_rows_equals_filtering_all_rows(tmp_path: Path, name: str, wanted: list[int]) -> None:
    WRITERS[name](tmp_path / name, ROWS)
    corpus = open_one(tmp_path / name)
    assert len(corpus.parts) == 1
    batches = read_part(corpus.layout, corpus.parts[0], columns=["id"], rows=np.array(wanted, dtype=np.int64))
    read = [row for batch in batches for row in batch.to_pylist()]
    assert read == [{"id": place, TEXT: ROWS[place]["text"], BAD: None} for place in wanted]


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=30, deadline=None)
@given(st.lists(ANY_TEXT, min_size=1, max_size=12))
def test_any_unicode_survives_every_format(values: list[str]) -> None:
    rows = [{"number": place, "text": value} for place, value in enumerate(values)]
    with tempfile.TemporaryDirectory() as folder:
        for name, write in WRITERS.items():
            path = Path(folder) / name
            write(path, rows)
            table = read_all(open_one(path), "number")
            assert texts(table) == values, name
            assert table.column("number").to_pylist() == list(range(len(values))), name


def write_strings(path: Path, column: pa.Array | pa.ChunkedArray) -> None:
    table = pa.table({"text": column})
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=4)
        return
    with pa.ipc.new_file(path, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=4):
            writer.write(batch)


RAGGED = ["", "é", "漢字", "abc", "🙂", "z" * 100, "b", "c", "abc", "abc"]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
    ids=str,
)
def test_text_of_every_string_type_is_read(tmp_path: Path, suffix: str, kind: pa.DataType) -> None:
    column = pa.array(["padding", *RAGGED]).cast(pa.string())
    column = column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
    write_strings(tmp_path / f"x{suffix}", column[1:])
    table = read_all(open_one(tmp_path / f"x{suffix}"), "text")
    assert texts(table) == RAGGED
    assert table.schema.field(TEXT).type in (pa.string(), pa.large_string())


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_chunked_and_sliced_columns_are_read_from_their_offsets(tmp_path: Path, suffix: str) -> None:
    whole = pa.array(RAGGED)
    write_strings(tmp_path / f"x{suffix}", pa.chunked_array([whole[2:5], whole[5:5], whole[5:], whole[:2]]))
    assert texts(read_all(open_one(tmp_path / f"x{suffix}"))) == [*RAGGED[2:], *RAGGED[:2]]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_small_batches_hold_the_same_rows(tmp_path: Path, suffix: str) -> None:
    values = [f"{number} " * (number % 50) for number in range(2000)]
    table = pa.table({"text": values, "list": [[v[:3], None] for v in values]})
    if suffix == ".parquet":
        pq.write_table(table, tmp_path / "x.parquet", row_group_size=700)
    else:
        with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as writer:
            writer.write_table(table)
    corpus = open_one(tmp_path / f"x{suffix}")
    batches = list(read_part(corpus.layout, corpus.parts[0], columns=["list"], batch_bytes=10_000))
    assert len(batches) > 5
    read = pa.Table.from_batches(batches)
    assert texts(read) == values
    assert read.column("list").to_pylist() == [[v[:3], None] for v in values]


def test_repeated_values_do_not_make_batches_huge(tmp_path: Path) -> None:
    # 4,000 rows of 20 kB are 80 MB in memory and one value in the file.
    pq.write_table(pa.table({"text": ["x" * 20_000] * 4000}), tmp_path / "x.parquet")
    corpus = open_one(tmp_path / "x.parquet")
    sizes = [batch.num_rows for batch in read_part(corpus.layout, corpus.parts[0])]
    assert sum(sizes) == 4000
    assert max(sizes) <= 400


def test_many_rows_are_read_in_batches_of_bounded_length(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [str(number) for number in range(70_000)]}), tmp_path / "x.parquet")
    corpus = open_one(tmp_path / "x.parquet")
    batches = list(read_part(corpus.layout, corpus.parts[0]))
    assert max(batch.num_rows for batch in batches) <= MOST_ROWS
    assert texts(pa.Table.from_batches(batches)) == [str(number) for number in range(70_000)]


def test_row_groups_without_a_wanted_row_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    first, second = ["a" * 50 + str(n) for n in range(40_000)], ["b" * 50 + str(n) for n in range(40_000)]
    pq.write_table(
        pa.table({"text": first + second}),
        path,
        row_group_size=40_000,
        compression="none",
        use_dictionary=False,
    )
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    # Damage the first row group's pages: a reader that touches them fails.
    start = column.data_page_offset
    data[start : start + 20_000] = b"\xff" * 20_000
    path.write_bytes(data)
    corpus = open_one(path)
    rows = np.array([40_000, 79_999], dtype=np.int64)
    batches = read_part(corpus.layout, corpus.parts[0], rows=rows)
    assert texts(pa.Table.from_batches(batches)) == [second[0], second[-1]]
    with pytest.raises(DataError, match="expected a readable parquet file"):
        list(read_part(corpus.layout, corpus.parts[0]))


def truncations(size: int) -> list[int]:
    return sorted({*range(0, size, max(1, size // 40)), *range(max(0, size - 16), size)})


@pytest.mark.parametrize(
    "name", ["pool.parquet", "pool.arrow", "stream.arrow", "pool.feather", "pool.jsonl.gz", "pool.jsonl.zst"]
)
def test_a_file_cut_at_any_byte_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, ROWS)
    whole = (tmp_path / name).read_bytes()
    for size in truncations(len(whole)):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(DataError, match=name):
            read_all(open_one(tmp_path / name))


def test_a_cut_plain_jsonl_file_never_gives_a_row_that_was_not_written(tmp_path: Path) -> None:
    WRITERS["pool.jsonl"](tmp_path / "pool.jsonl", ROWS)
    whole = (tmp_path / "pool.jsonl").read_bytes()
    expected = [row["text"] for row in ROWS]
    for size in truncations(len(whole)):
        (tmp_path / "pool.jsonl").write_bytes(whole[:size])
        try:
            read = texts(read_all(open_one(tmp_path / "pool.jsonl")))
        except DataError:
            continue
        assert read == expected[: len(read)]


def test_a_csv_file_cut_within_quotes_is_refused(tmp_path: Path) -> None:
    WRITERS["pool.csv"](tmp_path / "pool.csv", ROWS)
    whole = (tmp_path / "pool.csv").read_bytes()
    (tmp_path / "pool.csv").write_bytes(whole[: whole.index(b"lines")])
    with pytest.raises(DataError, match=r"pool\.csv.*truncated"):
        open_one(tmp_path / "pool.csv")


@pytest.mark.parametrize("name", ["pool.jsonl.gz", "pool.jsonl.zst"])
def test_compressed_files_of_several_members_are_read_to_their_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, ROWS[:5])
    first = path.read_bytes()
    WRITERS[name](path, ROWS[5:])
    path.write_bytes(first + path.read_bytes())
    assert texts(read_all(open_one(path))) == [row["text"] for row in ROWS]


def test_a_stream_with_more_behind_its_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stream.arrow"
    WRITERS["stream.arrow"](path, ROWS)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(DataError, match="after the end of the stream"):
        open_one(path)


def test_a_file_that_is_no_parquet_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"not a parquet file at all")
    with pytest.raises(DataError, match=r"expected a readable parquet file.*x\.parquet"):
        open_one(tmp_path / "x.parquet")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_invalid_utf8_is_found_in_its_row(tmp_path: Path, suffix: str) -> None:
    values = [b"fine", b"\xc3\xa9", b"\xff broken", b"half \xc3", b"fine again"]
    # The same buffers under the name of strings, as a careless writer makes them.
    write_strings(tmp_path / f"x{suffix}", pa.array(values, pa.binary()).view(pa.string()))
    with pytest.raises(DataError, match=r"invalid UTF-8.*row 2 "):
        read_all(open_one(tmp_path / f"x{suffix}"))
    table = read_all(open_one(tmp_path / f"x{suffix}", on_error="quarantine"), "text")
    assert texts(table) == ["fine", "é", None, None, "fine again"]
    assert table.column(BAD).to_pylist() == [None, None, "invalid UTF-8", "invalid UTF-8", None]


def test_columns_whose_names_hold_dots_are_told_from_nested_ones(tmp_path: Path) -> None:
    table = pa.table({"text": ["t"], "a": [{"b": 1}], "a.b": [2]})
    pq.write_table(table, tmp_path / "x.parquet")
    corpus = open_one(tmp_path / "x.parquet")
    assert read_all(corpus, "a.b").column("a.b").to_pylist() == [2]
    assert read_all(corpus, "a").column("a").to_pylist() == [{"b": 1}]


def test_the_offered_load_table_reads_several_small_files(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        WRITERS["pool.jsonl"](tmp_path / name, ROWS[:2])
    table = load_table(["a.jsonl", "b.jsonl"], base=tmp_path)
    assert table.schema.names == ["id", "source", "score", "text", TEXT]
    assert texts(table) == [row["text"] for row in ROWS[:2]] * 2


def test_a_parquet_file_without_columns_is_a_file_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({}), tmp_path / "none.parquet")
    pq.write_table(pa.table({"a": [1, 2, 3]}).select([]), tmp_path / "three.parquet")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    for file in sorted(tmp_path.iterdir()):  # in a process of its own: such a file once ended Python
        program = f"from curate.readers import scan_parquet, damaged_groups as d; print(sum(p.rows for p in scan_parquet({str(file)!r}, 1000)[1]), d({str(file)!r}))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "0 {}\n"), done.stderr
