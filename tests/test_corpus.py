"""Opening a corpus, its parts, its one schema, and what a bad row or file does."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_writers import WRITERS, Rows, jsonl_bytes
from msgspec.structs import replace

from curate import corpus as corpus_module
from curate.corpus import (
    BAD,
    TEXT,
    Corpus,
    CorpusSpec,
    file_location,
    load_table,
    open_corpus,
    read_part,
)
from curate.errors import ConfigError, DataError, InternalError


def rows_of(count: int, start: int = 0) -> Rows:
    return [{"id": f"d{n}", "text": f"document {n} " + "é" * (n % 7)} for n in range(start, start + count)]


def opened(folder: Path, *paths: str, **more: Any) -> Corpus:
    return open_corpus(CorpusSpec(paths=list(paths), **more), folder)


def read_all(corpus: Corpus, *columns: str) -> list[dict[str, Any]]:
    return [
        row
        for part in corpus.parts
        for batch in read_part(corpus.layout, part, columns=columns)
        for row in batch.to_pylist()
    ]


def texts(corpus: Corpus) -> list[str | None]:
    return [row[TEXT] for row in read_all(corpus)]


# -- parts -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["pool.parquet", "pool.arrow", "stream.arrow", "pool.feather", "pool.jsonl"])
def test_many_parts_hold_the_same_rows_as_one(tmp_path: Path, name: str) -> None:
    rows = rows_of(60)
    WRITERS[name](tmp_path / name, rows)
    one = opened(tmp_path, name)
    many = opened(tmp_path, name, part_bytes=100)
    assert len(one.parts) == 1
    assert len(many.parts) == 20
    assert [part.number for part in many.parts] == list(range(20))
    assert texts(many) == texts(one) == [row["text"] for row in rows]
    assert [part.first_row for part in many.parts] == list(np.cumsum([0] + [p.rows for p in many.parts])[:-1])
    assert sum(part.rows for part in many.parts) == 60
    assert len({part.fingerprint for part in many.parts}) == 20


def test_parts_are_never_of_two_files_and_stand_in_file_order(tmp_path: Path) -> None:
    for number, name in enumerate(["b.jsonl", "a.jsonl", "c.jsonl"]):
        WRITERS["pool.jsonl"](tmp_path / name, rows_of(2, 10 * number))
    corpus = opened(tmp_path, "c.jsonl", "*a.jsonl", "b.jsonl")
    assert [Path(part.file).name for part in corpus.parts] == ["c.jsonl", "a.jsonl", "b.jsonl"]
    assert [row["id"] for row in read_all(corpus, "id")] == ["d20", "d21", "d10", "d11", "d0", "d1"]


def test_a_renamed_or_copied_file_keeps_its_fingerprints(tmp_path: Path) -> None:
    WRITERS["pool.parquet"](tmp_path / "a.parquet", rows_of(9))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes())
    first, second = (
        [p.fingerprint for p in opened(tmp_path, name, part_bytes=50).parts]
        for name in ("a.parquet", "b.parquet")
    )
    assert first == second
    assert len(first) == 3
    WRITERS["pool.parquet"](tmp_path / "b.parquet", rows_of(9, 1))
    assert not set(first) & {p.fingerprint for p in opened(tmp_path, "b.parquet", part_bytes=50).parts}


def test_files_without_rows_are_no_parts_but_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"\n \n")
    pq.write_table(
        pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}), tmp_path / "e.parquet"
    )
    WRITERS["pool.jsonl"](tmp_path / "full.jsonl", rows_of(2))
    corpus = opened(tmp_path, "*")
    assert len(corpus.files) == 3
    assert [Path(part.file).name for part in corpus.parts] == ["full.jsonl"]


def test_part_bytes_estimate_the_text_columns_only(tmp_path: Path) -> None:
    table = pa.table(
        {"text": ["x" * 1000 + str(n) for n in range(50)], "blob": ["y" * 9000 + str(n) for n in range(50)]}
    )
    pq.write_table(table, tmp_path / "x.parquet", use_dictionary=False)
    (part,) = opened(tmp_path, "x.parquet").parts
    assert 50_000 <= part.bytes < 60_000


def test_a_layout_travels_to_other_processes(tmp_path: Path) -> None:
    WRITERS["pool.jsonl"](tmp_path / "x.jsonl", rows_of(3))
    corpus = opened(tmp_path, "x.jsonl", id="id")
    layout = pickle.loads(pickle.dumps(corpus.layout))
    (batch,) = read_part(layout, corpus.parts[0], columns=["id"])
    assert batch.column("id").to_pylist() == ["d0", "d1", "d2"]


def test_a_part_can_be_read_without_its_text_or_without_any_column(tmp_path: Path) -> None:
    for name in ("pool.parquet", "pool.arrow", "pool.jsonl", "pool.csv"):
        WRITERS[name](tmp_path / name, rows_of(4))
        corpus = opened(tmp_path, name)
        batches = list(read_part(corpus.layout, corpus.parts[0], columns=["id"], text=False))
        assert batches[0].schema.names == ["id", BAD]
        assert sum(batch.num_rows for batch in batches) == 4
        batches = list(read_part(corpus.layout, corpus.parts[0], text=False))
        assert batches[0].schema.names == [BAD]
        assert sum(batch.num_rows for batch in batches) == 4


def test_rows_that_are_not_ascending_within_the_part_are_refused(tmp_path: Path) -> None:
    WRITERS["pool.jsonl"](tmp_path / "x.jsonl", rows_of(3))
    corpus = opened(tmp_path, "x.jsonl")
    for wanted in ([1, 0], [0, 0], [3], [-1]):
        with pytest.raises(InternalError):
            list(read_part(corpus.layout, corpus.parts[0], rows=np.array(wanted)))


# -- what is known of earlier ----------------------------------------------


@pytest.fixture
def certain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a test has just written are taken for old ones: their times leave no doubt."""
    monkeypatch.setattr(corpus_module, "IN_DOUBT_NS", 0)


@pytest.mark.usefixtures("certain")
@pytest.mark.parametrize("name", ["pool.parquet", "pool.arrow", "pool.jsonl", "pool.jsonl.gz", "pool.csv"])
def test_known_files_are_not_read_again_unless_verified(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, rows_of(5))
    spec = CorpusSpec(paths=[name])
    first = open_corpus(spec, tmp_path)
    claimed = [replace(f, content="0" * 32) for f in first.files]
    assert open_corpus(spec, tmp_path, known=claimed).files == claimed
    verified = open_corpus(spec, tmp_path, known=claimed, verify=True)
    assert verified.files == first.files
    assert verified.parts == first.parts
    assert open_corpus(spec, tmp_path, known=first.files).parts == first.parts
    status = path.stat()
    path.write_bytes(b"\0" * status.st_size)  # what is not opened cannot be found to be broken
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    known = [replace(f, ctime_ns=path.stat().st_ctime_ns) for f in first.files]
    again = open_corpus(spec, tmp_path, known=known)
    assert (again.parts, again.layout.schema, again.layout.hints) == (first.parts, first.layout.schema, first.layout.hints)


@pytest.mark.parametrize("name", ["pool.parquet", "pool.jsonl"])
def test_a_file_that_changes_under_the_times_and_size_it_was_just_recorded_with_is_noticed(tmp_path: Path, name: str) -> None:
    """File systems and kernels keep coarse times: a file written twice in a moment may show one time for both."""
    path = tmp_path / name
    WRITERS[name](path, [{"id": "a", "text": "one"}])
    spec = CorpusSpec(paths=[name])
    first = open_corpus(spec, tmp_path)
    assert [file.doubt for file in first.files] == [True]
    status = path.stat()
    WRITERS[name](path, [{"id": "a", "text": "two"}])
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    known = [replace(f, ctime_ns=path.stat().st_ctime_ns) for f in first.files]
    second = open_corpus(spec, tmp_path, known=known)
    assert second.files[0].content != first.files[0].content
    assert texts(second) == ["two"]


@pytest.mark.usefixtures("certain")
def test_a_doubt_is_settled_by_one_more_hash(tmp_path: Path) -> None:
    WRITERS["pool.jsonl"](tmp_path / "x.jsonl", rows_of(3))
    spec = CorpusSpec(paths=["x.jsonl"])
    first = open_corpus(spec, tmp_path)
    assert [file.doubt for file in first.files] == [False]
    doubted = [replace(f, doubt=True) for f in first.files]
    assert open_corpus(spec, tmp_path, known=doubted).files == first.files


def test_a_known_file_that_changed_is_read_again(tmp_path: Path) -> None:
    WRITERS["pool.jsonl"](tmp_path / "x.jsonl", rows_of(2))
    spec = CorpusSpec(paths=["x.jsonl"])
    first = open_corpus(spec, tmp_path)
    WRITERS["pool.jsonl"](tmp_path / "x.jsonl", rows_of(3))
    second = open_corpus(spec, tmp_path, known=first.files)
    assert [part.rows for part in second.parts] == [3]
    assert second.files[0].content != first.files[0].content


@pytest.mark.parametrize("name", ["pool.parquet", "pool.arrow", "pool.jsonl", "pool.csv"])
def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, rows_of(4))
    corpus = opened(tmp_path, name)
    WRITERS[name](tmp_path / name, rows_of(7))
    with pytest.raises(DataError, match="has changed"):
        texts(corpus)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=name):
        texts(corpus)


def test_a_file_of_equal_size_and_other_bytes_is_refused_and_a_touched_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(jsonl_bytes([{"text": "a"}]))
    corpus = opened(tmp_path, "x.jsonl")
    os.utime(path, ns=(1, 1))
    assert texts(corpus) == ["a"]
    path.write_bytes(jsonl_bytes([{"text": "b"}]))
    os.utime(path, ns=(2, 2))
    with pytest.raises(DataError, match="has changed"):
        texts(corpus)


def test_other_bytes_under_the_size_and_the_time_that_they_had_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(jsonl_bytes([{"text": "a"}]))
    corpus = opened(tmp_path, "x.jsonl")
    then = path.stat()
    path.write_bytes(jsonl_bytes([{"text": "b"}]))
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    with pytest.raises(DataError, match="has changed"):
        texts(corpus)
    again = open_corpus(corpus.layout.spec, tmp_path, known=corpus.files)
    assert again.files[0].content != corpus.files[0].content
    path.write_bytes(jsonl_bytes([{"text": "a"}]))
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert texts(corpus) == ["a"]


# -- one schema ------------------------------------------------------------


def test_columns_are_unified_by_name_and_missing_ones_are_null(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": pa.array([1], pa.int32())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": [2.5], "text": ["b"], "extra": [["x"]]}), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "c", "late": true}\n')
    (tmp_path / "d.csv").write_bytes(b"text,n\nd,4\n")
    corpus = opened(tmp_path, "*.*")
    expected = [("text", "string"), ("n", "double"), ("extra", "list<element: string>"), ("late", "bool")]
    assert [(field.name, str(field.type)) for field in corpus.layout.schema] == expected
    rows = read_all(corpus, "text", "n", "extra", "late")
    assert [row["n"] for row in rows] == [1.0, 2.5, None, 4.0]
    assert [row["extra"] for row in rows] == [None, ["x"], None, None]
    assert [row["late"] for row in rows] == [None, None, True, None]


def test_metadata_of_other_libraries_is_left_behind(tmp_path: Path) -> None:
    schema = pa.schema(
        [pa.field("text", pa.string(), metadata={"k": "v"})], metadata={"pandas": "{}", "huggingface": "{}"}
    )
    pq.write_table(pa.table({"text": ["a"]}, schema=schema), tmp_path / "a.parquet")
    schema = opened(tmp_path, "a.parquet").layout.schema
    assert schema.metadata is None
    assert schema.field("text").metadata is None


def test_types_that_do_not_fit_name_both_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["b"], "n": ["one"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"column 'n', got int64 in .*a\.parquet and string in .*b\.parquet"):
        opened(tmp_path, "*.parquet")


def test_ids_of_different_types_become_strings(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "id": [7]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["b"], "id": ["x"]}), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_bytes(
        b'{"text": "c", "id": 18446744073709551615}\n{"text": "d", "id": "y"}\n'
    )
    (tmp_path / "d.csv").write_bytes(b"text,id\ne,007\n")
    corpus = opened(tmp_path, "*.*", id="id")
    assert [row["id"] for row in read_all(corpus, "id")] == ["7", "x", "18446744073709551615", "y", "007"]


# -- errors ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"text": "body"}, r"expected a column 'body' for the text"),
        ({"text": "texd"}, r"did you mean 'text'\?"),
        ({"id": "idd"}, r"expected a column 'idd' for corpus\.id.*'id', 'text'; did you mean 'id'\?"),
        ({"source": "where"}, r"expected a column 'where' for corpus\.source"),
    ],
)
def test_a_missing_column_lists_those_that_there_are(
    tmp_path: Path, more: dict[str, str], message: str
) -> None:
    WRITERS["pool.parquet"](tmp_path / "x.parquet", rows_of(2))
    with pytest.raises(ConfigError, match=message):
        opened(tmp_path, "x.parquet", **more)


def test_id_and_source_that_are_missing_are_reported_together(tmp_path: Path) -> None:
    WRITERS["pool.parquet"](tmp_path / "x.parquet", rows_of(2))
    with pytest.raises(ConfigError, match=r"(?s)corpus\.id.*\n.*corpus\.source"):
        opened(tmp_path, "x.parquet", id="a", source="b")


def test_a_column_named_like_the_programs_own_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], TEXT: ["b"]}), tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match="uses itself"):
        opened(tmp_path, "x.parquet")


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_corpus_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"expected at least one row, got none in .*x\.jsonl"):
        opened(tmp_path, "x.jsonl")
    with pytest.raises(DataError, match="at least one row"):
        load_table(["x.jsonl"], base=tmp_path)


def test_a_null_text_names_file_and_row(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b", "c", None, "e"]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    corpus = opened(tmp_path, "x.parquet", part_bytes=1)
    assert len(corpus.parts) == 3
    with pytest.raises(
        DataError, match=r"got null text: .*x\.parquet, row 3 \(0-based\); fix the row, or set"
    ):
        texts(corpus)


def test_a_text_of_another_type_is_refused_when_the_corpus_is_opened(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"expected strings in column 'text', got int64: .*x\.parquet"):
        opened(tmp_path, "x.parquet")


def test_a_file_without_the_text_column_is_refused_by_name(tmp_path: Path) -> None:
    WRITERS["pool.parquet"](tmp_path / "a.parquet", rows_of(1))
    pq.write_table(pa.table({"id": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"expected a column 'text' in every file, got none in .*b\.parquet"):
        opened(tmp_path, "*.parquet")


def test_quarantine_keeps_bad_rows_in_their_place_with_a_reason(tmp_path: Path) -> None:
    lines = [
        b'{"id": "a", "text": "fine"}',
        b'{"id": "b", "text": null}',
        b'{"id": "c"}',
        b'{"id": "d", "text": 5}',
        b'{"id": "e", "text": ["x"]}',
        b'{"id": "f", "text": "broken',
        b'{"id": "g", "text": "\xff"}',
        b'{"id": "h", "text": "\\ud800"}',
        b"[1, 2]",
        b"",
        b'{"id": null, "text": "no id"}',
        b'{"id": "i", "text": "fine too"}',
    ]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    corpus = opened(tmp_path, "x.jsonl", id="id", on_error="quarantine")
    rows = read_all(corpus, "id", "text")
    assert [row[TEXT] for row in rows] == ["fine", *[None] * 9, "fine too"]
    assert [row["id"] for row in rows] == ["a", "b", "c", "d", "e", None, None, None, None, None, "i"]
    reasons = [row[BAD] for row in rows]
    assert [reason and reason.split(":")[0] for reason in reasons] == [
        None, "null text", "null text", "not a string", "not a string", "bad JSON", "invalid UTF-8",
        "bad JSON", "not a JSON object", "null id", None,
    ]  # fmt: skip
    assert reasons[3:5] == ["not a string: int64", "not a string: list"]
    assert corpus.parts[0].rows == 11


def test_quarantine_of_parquet_keeps_the_other_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, None, 3], "text": ["a", "b", None]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [4, 5], "text": [[1], None]}), tmp_path / "b.parquet")
    corpus = opened(tmp_path, "*.parquet", id="id", on_error="quarantine")
    rows = read_all(corpus, "id", "text")
    assert [row[TEXT] for row in rows] == ["a", None, None, None, None]
    assert [row["id"] for row in rows] == [1, None, 3, 4, 5]
    assert [row[BAD] for row in rows] == [
        None,
        "null id",
        "null text",
        "not a string: list<element: int64>",
        "null text",
    ]


def test_invalid_utf8_in_another_column_is_a_bad_row_too(tmp_path: Path) -> None:
    source = pa.array([b"web", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": ["a", "b"], "source": source}), tmp_path / "x.parquet")
    corpus = opened(tmp_path, "x.parquet", on_error="quarantine")
    rows = read_all(corpus, "source")
    assert [row["source"] for row in rows] == ["web", None]
    assert [row[BAD] for row in rows] == [None, "invalid UTF-8 in column 'source'"]


def test_a_place_is_given_as_row_and_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "a"}\n\n\n{"text": "b"}\n{"text": "c"}\n')
    corpus = opened(tmp_path, "x.jsonl", part_bytes=1)
    assert len(corpus.parts) == 3
    path = tmp_path / "x.jsonl"
    assert file_location(corpus.layout, corpus.parts[0], 0) == f"{path}, row 0 (0-based; line 1)"
    assert file_location(corpus.layout, corpus.parts[1], 0) == f"{path}, row 1 (0-based; line 4)"
    assert file_location(corpus.layout, corpus.parts[2], 0) == f"{path}, row 2 (0-based; line 5)"
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "x.parquet")
    corpus = opened(tmp_path, "x.parquet")
    assert file_location(corpus.layout, corpus.parts[0], 0) == f"{tmp_path / 'x.parquet'}, row 0 (0-based)"


def test_unknown_columns_are_refused_when_reading(tmp_path: Path) -> None:
    WRITERS["pool.jsonl"](tmp_path / "x.jsonl", rows_of(1))
    corpus = opened(tmp_path, "x.jsonl")
    with pytest.raises(ConfigError, match="did you mean 'id'"):
        list(read_part(corpus.layout, corpus.parts[0], columns=["idd"]))


def test_a_target_says_which_row_is_bad(tmp_path: Path) -> None:
    (tmp_path / "guide.jsonl").write_text(
        json.dumps({"text": "a"}) + "\n" + json.dumps({"text": None}) + "\n"
    )
    with pytest.raises(DataError, match=r"guide\.jsonl, row 1 \(0-based; line 2\)"):
        load_table(["guide.jsonl"], base=tmp_path)
    table = load_table(["guide.jsonl"], base=tmp_path, on_error="quarantine")
    assert table.column(BAD).to_pylist() == [None, "null text"]


def test_the_snippets_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parent.parent / "docs" / "corpora.md"
    snippets = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    assert len(snippets) == 5
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(snippets), str(page), "exec"), {})
