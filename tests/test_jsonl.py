"""JSON lines: what is a row, and how its values become columns."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from curate.corpus import BAD, TEXT, CorpusSpec, load_table, open_corpus, read_part
from curate.errors import DataError
from curate.filescan import BLOCK_BYTES


def columns_of(folder: Path, lines: list[str], **more: Any) -> tuple[dict[str, str], list[dict[str, Any]]]:
    (folder / "x.jsonl").write_text("\n".join(lines) + "\n")
    table = load_table(["x.jsonl"], base=folder, **more)
    types = {field.name: str(field.type) for field in table.schema if field.name not in (TEXT, BAD)}
    return types, table.select(list(types)).to_pylist()


def test_a_key_that_first_appears_in_the_last_row_is_a_column(tmp_path: Path) -> None:
    lines = ['{"text": "a"}'] * 5000 + ['{"text": "b", "late": [1.5]}']
    types, rows = columns_of(tmp_path, lines)
    assert types == {"text": "string", "late": "list<item: double>"}
    assert rows[0]["late"] is None
    assert rows[-1]["late"] == [1.5]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "null", "-2"], "int64", [1, None, -2]),
        (["1", "2.5"], "double", [1.0, 2.5]),
        (["9007199254740993", "-9223372036854775808"], "int64", [9007199254740993, -(2**63)]),
        (["9007199254740993", "0.5"], "string", ["9007199254740993", "0.5"]),
        (["9223372036854775808", "1"], "string", ["9223372036854775808", "1"]),
        (["true", "null"], "bool", [True, None]),
        (["true", "1"], "string", ["true", "1"]),
        (['"a"', "7"], "string", ['"a"', "7"]),
        (['"a"', '{"k": [1, null]}'], "string", ['"a"', '{"k":[1,null]}']),
        (["[]", "[[1], []]"], "list<item: list<item: int64>>", [[], [[1], []]]),
        (["[1]", '["a"]'], "string", ["[1]", '["a"]']),
        (
            ['{"a": 1}', '{"b": "é"}'],
            "struct<a: int64, b: string>",
            [{"a": 1, "b": None}, {"a": None, "b": "é"}],
        ),
        (["{}", "{}"], "string", ["{}", "{}"]),
        (["null", "null"], "null", [None, None]),
    ],
)
def test_values_of_all_rows_decide_a_columns_type(
    tmp_path: Path, values: list[str], kind: str, expected: list[Any]
) -> None:
    for order in (1, -1):
        lines = [f'{{"text": "t", "v": {value}}}' for value in values[::order]]
        types, rows = columns_of(tmp_path, lines)
        found = [row["v"] for row in rows]
        if kind.startswith("struct") and order < 0:
            assert types["v"] == "struct<b: string, a: int64>"
        else:
            assert types["v"] == kind
        assert found == expected[::order]


def test_an_object_with_very_many_keys_is_carried_as_json_text(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "t", "counts": {f"word{n}": 1}}) for n in range(300)]
    types, rows = columns_of(tmp_path, lines)
    assert types["counts"] == "string"
    assert rows[7]["counts"] == '{"word7":1}'


def test_deep_nesting_is_carried_as_json_text(tmp_path: Path) -> None:
    deep = "[" * 60 + "]" * 60
    types, rows = columns_of(tmp_path, [f'{{"text": "t", "deep": {deep}}}'])
    assert types["deep"] == "string"
    assert rows[0]["deep"] == deep


def test_nesting_deeper_than_json_writers_go_comes_back_whole(tmp_path: Path) -> None:
    deep = '{"k":[1,"\\"é",' * 300 + "[]" + ',null],"l":{}}' * 300
    types, rows = columns_of(tmp_path, [f'{{"text": "t", "deep": {deep}}}'])
    assert types["deep"] == "string"
    assert rows[0]["deep"] == deep


def test_blank_lines_carriage_returns_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \n\t\n {"text": "b"} \n\n{"text": "c"}'
    (tmp_path / "x.jsonl").write_bytes(content)
    (tmp_path / "y.jsonl.gz").write_bytes(gzip.compress(content))
    for name in ("x.jsonl", "y.jsonl.gz"):
        assert load_table([name], base=tmp_path).column(TEXT).to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a"', r"got bad JSON: .* at character \d+ of the line: .*row 1 \(0-based; line 3\)"),
        (b'{"text": NaN}', "bad JSON"),
        (b'{"text": "a"}{"text": "b"}', "bad JSON"),
        (b'{"text": "\\ud800"}', "bad JSON"),
        (b'{"text": "\xff"}', "invalid UTF-8 at byte 10 of the line"),
        (b'"text"', "not a JSON object: string"),
        (b"[]", "not a JSON object: list"),
        (b"7", "not a JSON object: int64"),
        (b"null", "not a JSON object: null"),
    ],
)
def test_a_bad_line_is_found_when_the_corpus_is_opened(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "fine"}\n\n' + line + b'\n{"text": "fine"}\n')
    with pytest.raises(DataError, match=message):
        open_corpus(CorpusSpec(paths=["x.jsonl"]), tmp_path)
    table = load_table(["x.jsonl"], base=tmp_path, on_error="quarantine")
    assert table.column(TEXT).to_pylist() == ["fine", None, "fine"]


@pytest.mark.parametrize(
    "content", ['[{"text": "a"}]', '[\n {"text": "a"}\n]', '[\n  {\n   "text": "a"\n  }\n]']
)
@pytest.mark.parametrize("on_error", ["fail", "quarantine"])
def test_a_json_array_is_told_from_json_lines(tmp_path: Path, content: str, on_error: Any) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=r"got a JSON array.*jq"):
        open_corpus(CorpusSpec(paths=["x.json"], on_error=on_error), tmp_path)


@pytest.mark.parametrize("part_bytes", [1, 1000, 10**9])
def test_lines_around_the_edges_of_blocks_are_read_whole(tmp_path: Path, part_bytes: int) -> None:
    # A line longer than two blocks, and lines that end at, before and after the end of a block.
    texts = [
        "x" * (2 * BLOCK_BYTES + 17),
        "y" * (BLOCK_BYTES - 30),
        *("z" * n for n in range(40)),
        "é" * BLOCK_BYTES,
    ]
    content = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    (tmp_path / "x.jsonl").write_text(content)
    corpus = open_corpus(CorpusSpec(paths=["x.jsonl"], part_bytes=part_bytes), tmp_path)
    batches = [batch for part in corpus.parts for batch in read_part(corpus.layout, part)]
    assert [text for batch in batches for text in batch.column(TEXT).to_pylist()] == texts
    assert corpus.parts[-1].stop == len(content.encode())
    assert all(a.stop == b.start for a, b in zip(corpus.parts, corpus.parts[1:], strict=False))


def test_random_rows_come_back_as_they_were(tmp_path: Path) -> None:
    draw = random.Random(5)

    def value(depth: int) -> Any:
        kinds = [
            lambda: draw.randint(-(2**62), 2**62),
            lambda: draw.random(),
            lambda: "é\n" * draw.randint(0, 3),
        ]
        if depth:
            kinds += [lambda: [value(0)] * draw.randint(0, 2), lambda: {"k": value(0)}, lambda: None]
        return draw.choice(kinds)()

    rows = [{"text": "t", **{f"c{n}": value(1) for n in range(draw.randint(0, 4))}} for _ in range(200)]
    types, read = columns_of(tmp_path, [json.dumps(row) for row in rows])
    for row, found in zip(rows, read, strict=True):
        for name in types:
            as_json = name != "text" and found[name] is not None and types[name] == "string"
            assert (json.loads(found[name]) if as_json else found[name]) == row.get(name)
