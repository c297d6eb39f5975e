"""What of a row is the text: columns, templates and the turns of instruction data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.corpus import BAD, TEXT, load_table
from curate.errors import ConfigError, DataError
from curate.textview import checked_utf8, taken

MESSAGES = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "2"},
            {"role": "user", "content": "And é?"},
            {"role": "assistant", "content": "è"},
        ]
    },
    {"messages": [{"role": "user", "content": "Alone"}]},
    {"messages": []},
    {"messages": [{"role": "assistant", "content": None}, {"role": "tool", "content": "42"}]},
]
CONVERSATIONS = [
    {"conversations": [{"from": turn["role"].replace("user", "human").replace("assistant", "GPT"),
                        "value": turn["content"]} for turn in row["messages"]]}
    for row in MESSAGES
]  # fmt: skip
PAIRS = [{"prompt": "Q1", "completion": "A1"}, {"prompt": "Q2", "completion": ""}]
ALPACA = [
    {
        "instruction": "Add.",
        "input": "1, 2",
        "output": "3",
        "system": "Be exact.",
        "history": [["hi", "ho"]],
    },
    {"instruction": "Sing.", "input": "", "output": "La", "system": None, "history": []},
    {"instruction": "Stop.", "input": None, "output": "Ok", "system": "", "history": None},
]

VIEWS: list[tuple[list[dict[str, Any]], str, list[str]]] = [
    (MESSAGES, "all", ["Be brief.\n1 + 1?\n2\nAnd é?\nè", "Alone", "", "42"]),
    (MESSAGES, "user", ["1 + 1?\nAnd é?", "Alone", "", ""]),
    (MESSAGES, "assistant", ["2\nè", "", "", ""]),
    (MESSAGES, "last_turn", ["è", "Alone", "", "42"]),
    (CONVERSATIONS, "all", ["Be brief.\n1 + 1?\n2\nAnd é?\nè", "Alone", "", "42"]),
    (CONVERSATIONS, "user", ["1 + 1?\nAnd é?", "Alone", "", ""]),
    (CONVERSATIONS, "assistant", ["2\nè", "", "", ""]),
    (CONVERSATIONS, "last_turn", ["è", "Alone", "", "42"]),
    (PAIRS, "all", ["Q1\nA1", "Q2\n"]),
    (PAIRS, "user", ["Q1", "Q2"]),
    (PAIRS, "assistant", ["A1", ""]),
    (PAIRS, "last_turn", ["A1", ""]),
    (ALPACA, "all", ["Be exact.\nhi\nho\nAdd.\n1, 2\n3", "Sing.\nLa", "Stop.\nOk"]),
    (ALPACA, "user", ["hi\nAdd.\n1, 2", "Sing.", "Stop."]),
    (ALPACA, "assistant", ["ho\n3", "La", "Ok"]),
    (ALPACA, "last_turn", ["3", "La", "Ok"]),
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, **how: Any) -> list[str | None]:
    found: list[str | None] = load_table([path.name], base=path.parent, **how).column(TEXT).to_pylist()
    return found


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl"])
@pytest.mark.parametrize(("rows", "view", "expected"), VIEWS)
def test_instruction_data_is_recognised_and_viewed(
    tmp_path: Path, suffix: str, rows: list[dict[str, Any]], view: Any, expected: list[str]
) -> None:
    assert read(write(tmp_path / f"x{suffix}", rows), view=view) == expected


def test_a_text_column_is_preferred_to_instruction_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"text": "mine", "prompt": "p", "completion": "c"}])
    assert read(path) == ["mine"]
    assert read(path, text="prompt/completion") == ["p\nc"]
    assert read(path, text="prompt") == ["p"]


def test_a_list_of_turns_is_read_under_any_name(tmp_path: Path) -> None:
    rows = [{"dialog": row["messages"]} for row in MESSAGES]
    path = write(tmp_path / "x.parquet", rows)
    assert read(path, text="dialog", view="user") == ["1 + 1?\nAnd é?", "Alone", "", ""]


def test_large_and_fixed_lists_of_turns_are_read(tmp_path: Path) -> None:
    turn = pa.struct([("role", pa.large_string()), ("content", pa.dictionary(pa.int8(), pa.string()))])
    turns = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], None]
    for kind in (pa.large_list(turn), pa.list_(turn, 2)):
        # Dictionaries within lists are made of plain strings first: Arrow does not build them from rows.
        plain = pa.array(turns, pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))
        flat = plain.flatten()
        values = pa.StructArray.from_arrays(
            [
                flat.field("role").cast(pa.large_string()),
                flat.field("content").dictionary_encode().cast(turn[1].type),
            ],
            fields=list(turn),
        )
        if pa.types.is_large_list(kind):
            column = pa.LargeListArray.from_arrays(pa.array([0, 2], pa.int64()), values)
        else:
            column = pa.FixedSizeListArray.from_arrays(values, 2)
        table = pa.table({"messages": column})
        with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as writer:
            writer.write_table(table)
        assert read(tmp_path / "x.arrow") == ["a\nb"]
        assert read(tmp_path / "x.arrow", view="assistant") == ["b"]


def test_null_lists_that_hide_turns_do_not_shift_the_others(tmp_path: Path) -> None:
    fields = {"role": pa.array(["user"] * 4), "content": pa.array(["a", "hidden", "c", "d"])}
    values = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    lists = pa.ListArray.from_arrays(
        pa.array([0, 1, 2, 4], pa.int32()), values, mask=pa.array([False, True, False])
    )
    table = pa.table({"messages": lists})
    with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    table = load_table(["x.arrow"], base=tmp_path, on_error="quarantine")
    assert table.column(TEXT).to_pylist() == ["a", None, "c\nd"]
    assert table.column(BAD).to_pylist() == [None, "null text", None]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl"])
def test_a_template_joins_columns(tmp_path: Path, suffix: str) -> None:
    rows = [{"a": "x", "b": 1, "c": True, "d": 0.5}, {"a": "é{}", "b": -7, "c": False, "d": 1e20}]
    path = write(tmp_path / f"x{suffix}", rows)
    assert read(path, text="{a}: {b}\n{{{c}}} {a}") == ["x: 1\n{true} x", "é{}: -7\n{false} é{}"]
    assert read(path, text="{d}") == ["0.5", "1e+20"]


def test_a_template_does_not_depend_on_the_values_of_other_rows(tmp_path: Path) -> None:
    values = [10**15, 1e20, "s", True, 2.0]
    expected = ["1000000000000000", "1e+20", "s", "true", "2"]
    assert read(write(tmp_path / "x.jsonl", [{"v": value} for value in values]), text="{v}") == expected
    for value, text in zip(values, expected, strict=True):
        assert read(write(tmp_path / "x.jsonl", [{"v": value}]), text="{v}") == [text]


def test_a_template_over_csv_takes_values_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("n,m\n1.50,007\n2,8\n")
    assert read(tmp_path / "x.csv", text="{n}/{m}") == ["1.50/007", "2/8"]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_a_null_in_a_template_makes_the_row_bad(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"x{suffix}", [{"a": "x", "b": "y"}, {"a": "x", "b": None}])
    with pytest.raises(DataError, match=r"null text: column 'b'.*row 1 "):
        read(path, text="{a}{b}")
    table = load_table([path.name], base=tmp_path, text="{a}{b}", on_error="quarantine")
    assert table.column(TEXT).to_pylist() == ["xy", None]
    assert table.column(BAD).to_pylist() == [None, "null text: column 'b'"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{nope}",
            "a column 'nope' for the template '{nope}', and found none; the columns are 'a', 'bee'",
        ),
        ("{ble}", r"did you mean 'bee'\?"),
        ("{a", "lone '{' at character 0"),
        ("a}", "lone '}' at character 1"),
        ("{{a}}", "at least one column"),
        ("be", r"expected a column 'be' for the text, and found none.*did you mean 'bee'\?"),
        ("text", "nor messages, conversations"),
        ("alpaca", "expected a column 'instruction' for `text: alpaca`"),
        ("prompt/response", "expected a column 'prompt'"),
    ],
)
def test_a_text_that_is_not_there_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "x.jsonl", [{"a": "x", "bee": "y"}])
    with pytest.raises(ConfigError, match=message):
        read(path, text=text)


@pytest.mark.parametrize("text", ["a", "{a}"])
def test_a_view_of_plain_text_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "x.jsonl", [{"a": "x"}])
    with pytest.raises(ConfigError, match="expected instruction data for `view: user`"):
        read(path, text=text, view="user")


BAD_TURNS: list[tuple[Any, str]] = [
    (None, "null text"),
    ("hello", "not a list of turns: string"),
    ({"role": "user", "content": "x"}, "not a list of turns: object"),
    ([{"role": "user", "content": "x"}, 7], "a turn is not an object: int64"),
    ([{"role": "user", "content": ["x"]}], "a turn's content is not a string: list"),
    ([{"role": 1, "content": "x"}], "a turn's role is not a string: int64"),
]


@pytest.mark.parametrize(("turns", "reason"), BAD_TURNS)
def test_malformed_turns_are_bad_rows_in_their_place(tmp_path: Path, turns: Any, reason: str) -> None:
    path = write(tmp_path / "x.jsonl", [MESSAGES[0], {"messages": turns}, MESSAGES[1]])
    table = load_table([path.name], base=tmp_path, view="user", on_error="quarantine")
    assert table.column(TEXT).to_pylist() == ["1 + 1?\nAnd é?", None, "Alone"]
    assert table.column(BAD).to_pylist() == [None, reason, None]


def test_extra_fields_of_turns_do_not_matter(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "x", "weight": 1},
        {"role": "user", "content": "y", "weight": {"a": []}},
    ]
    path = write(tmp_path / "x.jsonl", [{"messages": turns}])
    assert read(path) == ["x\ny"]


def test_invalid_utf8_in_a_turn_is_found_in_its_row(tmp_path: Path) -> None:
    content = pa.array([b"a", b"b", b"\xff"], pa.binary()).view(pa.string())
    values = pa.StructArray.from_arrays([pa.array(["user"] * 3), content], names=["role", "content"])
    table = pa.table({"messages": pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), values)})
    pq.write_table(table, tmp_path / "x.parquet")
    found = load_table(["x.parquet"], base=tmp_path, on_error="quarantine")
    assert found.column(TEXT).to_pylist() == ["a\nb", None]
    assert found.column(BAD).to_pylist() == [None, "invalid UTF-8"]


def test_a_prompt_that_is_no_string_is_a_bad_row(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response": "r"}, {"prompt": 5, "response": "r"}, {"prompt": "p"}]
    path = write(tmp_path / "x.jsonl", rows)
    table = load_table([path.name], base=tmp_path, on_error="quarantine")
    assert table.column(BAD).to_pylist() == [
        None,
        "not a string: int64 in column 'prompt'",
        "null text: column 'response'",
    ]


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", None, "a text that is too long to stand in a view itself", "d", "e"], pa.string_view()),
        pa.array([{"x": "a"}, {"x": None}, None, {"x": "d" * 40}, {"x": "e"}], pa.struct([("x", pa.string_view())])),
        pa.array([["a"], [], None, ["d", "d" * 40], ["e"]], pa.list_(pa.string_view())),
        pa.array(["a", None, "c", "d", "e"]),
    ],
    ids=["view", "views in structs", "views in lists", "strings"],
)
@pytest.mark.parametrize("rows", [[], [0], [4], [1, 2], [0, 2, 3, 4], [0, 1, 2, 3, 4]])
def test_rows_of_any_type_are_taken_views_included(array: pa.Array, rows: list[int]) -> None:
    for sliced in (array, pa.concat_arrays([array, array]).slice(5)):
        found = taken(sliced, np.array(rows, dtype=np.int64))
        assert found.type == array.type
        assert found.to_pylist() == [array.to_pylist()[row] for row in rows]


def test_a_view_of_invalid_utf8_is_a_row_set_aside_not_the_end() -> None:
    raw = pa.array([b"ok", b"bad \xff and long enough to stand outside of its view", None], pa.binary_view())
    views = pa.Array.from_buffers(pa.string_view(), 3, raw.buffers())
    text, bad = checked_utf8(views)
    assert text.to_pylist() == ["ok", None, None]
    assert bad is not None
    assert bad.to_pylist() == [None, "invalid UTF-8", None]
