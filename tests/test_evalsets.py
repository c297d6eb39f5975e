"""Evaluation sets: sides apart, rows without an answer, fingerprints of content, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folders import write_rows

from curate import evalsets
from curate.errors import ConfigError, DataError
from curate.evalsets import EvalSet

ROWS = [{"q": "What is it?", "a": "It is that.", "n": 1}, {"q": "And why?", "a": None, "n": 2}]


def loaded(folder: Path, **spec: object) -> evalsets.Items:
    return evalsets.load({"one": EvalSet(files=["set.*"], **spec)}, folder)  # type: ignore[arg-type]


def test_questions_and_answers_stand_apart_and_an_answer_may_lack(tmp_path: Path) -> None:
    write_rows(tmp_path / "set.jsonl", ROWS)
    items = loaded(tmp_path, question="q", answer="a")
    assert items.table.to_pylist() == [
        {"set": "one", "row": 0, "side": "question", "text": "What is it?"},
        {"set": "one", "row": 1, "side": "question", "text": "And why?"},
        {"set": "one", "row": 0, "side": "answer", "text": "It is that."},
    ]
    assert items.rows == {"one": 2}


def test_a_template_makes_a_side_and_a_set_without_sides_has_text(tmp_path: Path) -> None:
    write_rows(tmp_path / "set.jsonl", [{"text": "plain", "n": 3}])
    assert loaded(tmp_path).table.to_pylist() == [{"set": "one", "row": 0, "side": "text", "text": "plain"}]
    assert loaded(tmp_path, question="{n}: {text}").table["text"].to_pylist() == ["3: plain"]


def test_a_fingerprint_is_of_the_texts_not_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_rows(tmp_path / "a" / "set.jsonl", ROWS)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "b" / "set.parquet")
    one, other = (loaded(tmp_path / folder, question="q", answer="a") for folder in "ab")
    assert one.fingerprints == other.fingerprints
    assert one.key() != loaded(tmp_path / "a", question="q").key()
    write_rows(tmp_path / "a" / "set.jsonl", ROWS[::-1])
    assert loaded(tmp_path / "a", question="q", answer="a").key() != one.key()


def test_what_is_wrong_names_the_set(tmp_path: Path) -> None:
    write_rows(tmp_path / "set.jsonl", ROWS)
    with pytest.raises(ConfigError, match=r"sets\.one: expected a column 'p'"):
        loaded(tmp_path, question="p")
    with pytest.raises(ConfigError, match=r"sets\.x\.files: "):
        evalsets.check_files({"x": EvalSet(files=["none.jsonl"])}, tmp_path)
    with pytest.raises(DataError, match="row 1"):  # a question must be there
        loaded(tmp_path, question="a")
    for wrong in ({"files": []}, {"files": ["x"], "text": "t", "question": "q"}, {"files": ["x"], "questions": "q"}):
        with pytest.raises((ConfigError, msgspec.ValidationError)):
            msgspec.convert(wrong, EvalSet)
