"""csv and tsv: fields, types, and rows that do not fit the header."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from curate import delimited
from curate.corpus import BAD, TEXT, CorpusSpec, load_table, open_corpus, read_part
from curate.errors import DataError


def load(folder: Path, content: bytes, name: str = "x.csv", **more: Any) -> dict[str, list[Any]]:
    (folder / name).write_bytes(content)
    found: dict[str, list[Any]] = load_table([name], base=folder, **more).to_pydict()
    return found


def types_of(folder: Path, content: bytes, **more: Any) -> dict[str, str]:
    (folder / "x.csv").write_bytes(content)
    schema = open_corpus(CorpusSpec(paths=["x.csv"], **more), folder).layout.schema
    return {field.name: str(field.type) for field in schema}


def test_quotes_hold_delimiters_newlines_and_doubled_quotes(tmp_path: Path) -> None:
    found = load(tmp_path, b'text,n\n"a, ""b""\nc",1\n plain ,2\n')
    assert found == {"text": ['a, "b"\nc', " plain "], "n": [1, 2], TEXT: ['a, "b"\nc', " plain "]}


def test_an_empty_field_is_null_and_a_quoted_one_is_empty(tmp_path: Path) -> None:
    found = load(tmp_path, b'text,s,n\na,"",\nb,,1\n"",x,2\n')
    assert found["s"] == ["", None, "x"]
    assert found["n"] == [None, 1, 2]
    assert found[TEXT] == ["a", "b", ""]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-20", ""], "int64"),
        (["1", "2.5", "1e5"], "double"),
        (["1", "007"], "string"),
        (["1.", "2"], "string"),
        (["+1"], "string"),
        (["1_000"], "string"),
        (["999999999999999999"], "int64"),
        (["9999999999999999999"], "string"),
        (["9007199254740993", "0.5"], "string"),
        (["true", "False"], "bool"),
        (["true", "1"], "string"),
        (["2024-01-01"], "string"),
        (["nan"], "string"),
        (["", ""], "null"),
    ],
)
def test_all_values_decide_a_columns_type(tmp_path: Path, values: list[str], kind: str) -> None:
    rows = "".join(f"t,{value}\n" for value in values)
    assert types_of(tmp_path, f"text,v\n{rows}".encode())["v"] == kind


def test_the_last_row_decides_as_much_as_the_first(tmp_path: Path) -> None:
    content = b"text,v\n" + b"t,1\n" * 3_000_000 + b"t,x\n"
    assert len(content) > delimited.BLOCKS[0]
    assert types_of(tmp_path, content)["v"] == "string"


def test_ids_and_text_stay_as_they_were_written(tmp_path: Path) -> None:
    assert types_of(tmp_path, b"text,key\n1,2\n", id="key") == {"text": "string", "key": "string"}


def test_rows_that_do_not_fit_the_header_keep_their_place(tmp_path: Path) -> None:
    content = b"text,n\na,1\nonly\n\nb,2\nx,y,z\n,\xff\nlast\n"
    with pytest.raises(DataError, match=r"(?i)expected 2 fields, got 1: .*x\.csv, row 1 "):
        load(tmp_path, content)
    found = load(tmp_path, content, on_error="quarantine")
    assert found[TEXT] == ["a", None, "b", None, None, None]
    assert found[BAD] == [
        None,
        "expected 2 fields, got 1",
        None,
        "expected 2 fields, got 3",
        "null text",
        "expected 2 fields, got 1",
    ]


def test_faulty_rows_keep_their_place_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "BLOCKS", (64,))
    lines = [f"text {n}" if n % 7 == 3 else f"text {n},{n}" for n in range(200)]
    (tmp_path / "x.csv").write_text("text,n\n" + "\n".join(lines) + "\n")
    corpus = open_corpus(CorpusSpec(paths=["x.csv"], on_error="quarantine"), tmp_path)
    (part,) = corpus.parts
    assert part.rows == 200
    batches = list(read_part(corpus.layout, part, columns=["n"]))
    assert len(batches) > 10
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert [row[TEXT] for row in rows] == [None if n % 7 == 3 else f"text {n}" for n in range(200)]
    assert [row["n"] for row in rows] == [None if n % 7 == 3 else n for n in range(200)]
    wanted = np.array([0, 2, 3, 4, 60, 66, 67, 199])
    picked = [
        row
        for batch in read_part(corpus.layout, part, columns=["n"], rows=wanted)
        for row in batch.to_pylist()
    ]
    assert picked == [rows[place] for place in wanted]


def test_invalid_utf8_is_a_bad_row(tmp_path: Path) -> None:
    content = b"text,s\nfine,x\n\xff,y\nfine,\xc3\n"
    with pytest.raises(DataError, match=r"invalid UTF-8.*row 1 "):
        load(tmp_path, content)
    found = load(tmp_path, content, on_error="quarantine")
    assert found[TEXT] == ["fine", None, None]
    assert found[BAD] == [None, "invalid UTF-8", "invalid UTF-8 in column 's'"]


def test_a_row_longer_than_a_block_is_read_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "BLOCKS", (1 << 10, 1 << 14))
    found = load(tmp_path, b"text\nshort\n" + b"x" * 9000 + b"\nshort\n")
    assert [len(text) for text in found[TEXT]] == [5, 9000, 5]
    with pytest.raises(DataError, match="longer one"):
        load(tmp_path, b"text\nshort\n" + b"x" * 99_000 + b"\nshort\n")


def test_a_quote_that_never_closes_is_refused(tmp_path: Path) -> None:
    for content in (b'text,n\na,1\n"b,2\n', b'text\n"', b'text,n\n"a"",1\n'):
        with pytest.raises(DataError, match=r"(?i)x\.csv"):
            load(tmp_path, content)


def test_a_file_without_a_header_or_with_a_repeated_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.csv"):
        load(tmp_path, b"")
    with pytest.raises(DataError, match="'text' twice in the header"):
        load(tmp_path, b"text,text\na,b\n")
    with pytest.raises(DataError, match="at least one row"):
        load(tmp_path, b"text,n\n")


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbftext\r\na\r\nb")[TEXT] == ["a", "b"]


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.csv.zst", "x.tsv", "x.tsv.gz"])
def test_both_delimiters_are_read_plain_and_compressed(tmp_path: Path, name: str) -> None:
    content = b"text,n\na b,1\n\xc3\xa9,2\n"
    content = content.replace(b",", b"\t") if ".tsv" in name else content
    if name.endswith(".gz"):
        content = gzip.compress(content)
    elif name.endswith(".zst"):
        content = zstandard.compress(content)
    assert load(tmp_path, content, name) == {"text": ["a b", "é"], "n": [1, 2], TEXT: ["a b", "é"]}
