"""Damaged files at random: no traceback, no hang, no dead interpreter, and every row accounted for or the file named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fuzzing import Case, carry_out, judge, lines_of, make_case, watch


def test_fifty_damaged_files_are_read_or_refused_and_never_lost(tmp_path: Path) -> None:
    found = watch("everyday", 50, tmp_path / "case")
    assert found.wrong == []
    assert found.cases == 50


@pytest.mark.slow
def test_three_thousand_damaged_files_are_read_or_refused_and_never_lost(tmp_path: Path) -> None:
    found = watch("proof", 3000, tmp_path / "case")
    assert found.wrong == []
    assert found.cases == 3000


# -- the judge must be able to say no -------------------------------------------------------------------------


def a_case(**more: object) -> Case:
    given: dict[str, object] = {
        "number": 1, "name": "bad.jsonl", "data": b'{"text": "one"}\n{"text": "two"}\n', "on_error": "quarantine", "what": "jsonl", "written": Counter()
    }  # fmt: skip
    return Case(**(given | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"kept": Counter(["one"])}, "invented ['two']"),
        ({"kept": Counter(["one", "two", "three"])}, "lost ['three']"),
        ({"rows": 3}, "2 rows accounted for, expected 3"),
        ({"codes": frozenset({3})}, "exit 0, expected [3]"),
        ({"sealed": True, "written": Counter(["one"])}, "what was never written: ['two']"),
        ({"data": b"[]"}, ""),
        ({"data": b"[]", "codes": frozenset({0})}, "exit 3, expected [0]"),
    ],
)
def test_the_judge_tells_what_was_lost_and_what_was_invented(tmp_path: Path, more: dict[str, object], said: str) -> None:
    wrong = carry_out(a_case(**more), tmp_path / "case")
    assert said in wrong
    assert bool(wrong) == bool(said)


def test_the_judge_sees_a_funnel_that_does_not_balance_and_a_nameless_error(tmp_path: Path) -> None:
    case = a_case(kept=Counter(["one", "two"]), rows=2)
    assert carry_out(case, tmp_path / "case") == ""
    funnel = tmp_path / "case" / "run" / "funnel.parquet"
    pq.write_table(pq.read_table(funnel).slice(0, 0), funnel)
    assert "rows in the funnel" in judge(case, 0, "", tmp_path / "case")
    assert "without the file's name" in judge(case, 3, "error: something is wrong", tmp_path / "case")
    assert "traceback" in judge(case, 3, "Traceback (most recent call last): bad.jsonl", tmp_path / "case")


def test_a_death_and_a_silence_are_findings_and_the_cases_after_them_are_carried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import json, os, sys, time\n"
        "for n in range(int(sys.argv[3]), int(sys.argv[4])):\n"
        "    print(json.dumps({'begun': n}), flush=True)\n"
        "    if n == 1: os.abort()\n"
        "    if n == 2: time.sleep(600)\n"
        "    print(json.dumps({'done': n, 'what': 'x', 'on_error': 'fail', 'wrong': ''}), flush=True)\n"
    )
    monkeypatch.setattr("fuzzing.__file__", str(program))
    found = watch("any", 4, tmp_path / "case", patience_seconds=2)
    assert found.cases == 4
    assert [wrong.split(":")[0] for wrong in found.wrong] == ["case 1", "case 2"]
    assert "ended with -6" in found.wrong[0]
    assert "ended with -9" in found.wrong[1]


def test_a_case_follows_from_its_seed_and_number_alone() -> None:
    assert make_case("s", 5) == make_case("s", 5)
    assert make_case("s", 5) != make_case("s", 6)
    assert len({make_case("s", n).what.split(":")[0] for n in range(80)}) == 7


def test_blank_lines_are_no_rows_to_the_judge_either() -> None:
    assert lines_of(b"\xef\xbb\xbf{}\n \r\n\n{}") == [b"{}", b"{}"]
