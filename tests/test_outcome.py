"""What a run says that it did: parts beside those of the run before, and the work of each stage."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import STAGES, recipe_for, run, small_rows, texts_read, write_pool, write_rows

from curate.corpus import Part
from curate.outcome import Outcome, PartChanges, part_changes

FROZEN: list[dict[str, Any]] = [{"dsir": {"state": "frozen"}} if "dsir" in stage else stage for stage in STAGES]


def part(file: str, content: str, start: int = 0) -> Part:
    return Part(0, file, "parquet", start, start + 1, 0, 1, 1, content)


def compared(now: list[Part], before: list[Part]) -> PartChanges:
    return part_changes(now, [(p.file, p.start, p.stop, p.fingerprint) for p in before])


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        ([part("a", "1")], [], PartChanges(0, 0, 0, 1, 0)),
        ([part("a", "1")], [part("a", "1")], PartChanges(1, 0, 0, 0, 0)),
        ([part("a", "2")], [part("a", "1")], PartChanges(0, 0, 1, 0, 0)),
        ([part("b", "1")], [part("a", "1")], PartChanges(0, 1, 0, 0, 0)),
        ([part("b", "2")], [part("a", "1")], PartChanges(0, 0, 0, 1, 1)),
        ([], [part("a", "1"), part("b", "2")], PartChanges(0, 0, 0, 0, 2)),
        # a and b changed places: both contents are there, each in another file
        ([part("a", "2"), part("b", "1")], [part("a", "1"), part("b", "2")], PartChanges(0, 2, 0, 0, 0)),
        # a file of two parts became one of three, of which one is as it was
        ([part("a", "1", 0), part("a", "8", 1), part("a", "9", 2)], [part("a", "1", 0), part("a", "2", 1)], PartChanges(1, 0, 1, 1, 0)),
        # two files of equal content became one
        ([part("a", "1")], [part("a", "1"), part("b", "1")], PartChanges(1, 0, 0, 0, 1)),
    ],
)
def test_parts_are_told_apart_by_file_and_content(now: list[Part], before: list[Part], expected: PartChanges) -> None:
    assert compared(now, before) == expected


_PARTS = st.lists(st.builds(part, st.sampled_from("abc"), st.sampled_from("12345"), st.integers(0, 2)), max_size=8)


@given(_PARTS, _PARTS)
def test_the_counts_of_parts_balance(now: list[Part], before: list[Part]) -> None:
    found = compared(now, before)
    assert found.unchanged + found.renamed + found.changed + found.new == len(now)
    assert found.unchanged + found.renamed + found.changed + found.removed == len(before)
    assert min(found.unchanged, found.renamed, found.changed, found.new, found.removed) >= 0


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A folder with the sample's pool in four files, all of them of another hour."""
    return write_pool(tmp_path, 4)


def more_rows(count: int = 50) -> list[dict[str, Any]]:
    return [row | {"id": f"{row['id']}-more", "text": f"{row['text']} And more."} for row in small_rows()[:count]]


def work(outcome: Outcome) -> dict[str, tuple[int, int, int, str | None, str | None]]:
    return {w.label: (w.measured, w.judged, w.fitted, w.state, w.finish) for w in outcome.stages}


def test_a_first_run_computes_all_and_the_same_again_nothing(pool: Path) -> None:
    first = run(recipe_for(pool), pool / "run").outcome
    assert (first.parts, first.unchanged) == (PartChanges(0, 0, 0, 4, 0), False)
    assert work(first) == {
        "quarantine": (4, 0, 0, None, None), "overlap": (4, 4, 0, None, None), "length": (0, 4, 0, None, None),
        "dedup_exact": (0, 0, 0, None, "anew"), "dsir": (4, 0, 4, "fitted", None), "select": (0, 0, 0, None, "anew"),
    }  # fmt: skip
    again = run(recipe_for(pool), pool / "run").outcome
    assert (again.parts, again.unchanged, again.computed_parts) == (PartChanges(4, 0, 0, 0, 0), True, 0)
    assert work(again)["dsir"] == (0, 0, 0, "reused", None)
    assert work(again)["select"] == (0, 0, 0, None, "reused")
    assert (again.documents, again.kept, again.text_bytes, again.published) == (first.documents, first.kept, first.text_bytes, first.published)
    assert again.warnings == first.warnings


def test_a_changed_choice_finishes_one_stage_anew(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    stages = [*STAGES[:-1], {"select": {"by": "dsir", "budget": "5%"}}]
    found = work(run(recipe_for(pool, stages=stages), pool / "run").outcome)
    assert found["dedup_exact"][4] == "reused"
    assert found["dsir"] == (0, 0, 0, "reused", None)
    assert found["select"][4] == "anew"


def test_a_frozen_state_reads_the_text_of_the_part_that_was_added_alone(pool: Path) -> None:
    run(recipe_for(pool, stages=FROZEN), pool / "run")
    write_rows(pool / "pool" / "9.parquet", more_rows())
    found = run(recipe_for(pool, stages=FROZEN), pool / "run").outcome
    assert found.parts == PartChanges(4, 0, 0, 1, 0)
    assert found.computed_parts == 1
    assert set(texts_read(pool / "run").values()) == {50, 49}  # one is a copy, dropped before it is scored
    assert work(found)["dsir"] == (1, 0, 0, "frozen", None)
    assert work(found)["quarantine"][0] == 1


def test_a_state_that_is_fitted_anew_counts_the_new_part_and_measures_all(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    write_rows(pool / "pool" / "9.parquet", more_rows())
    found = work(run(recipe_for(pool), pool / "run").outcome)
    assert found["dsir"] == (5, 0, 1, "fitted", None)


def test_renamed_changed_and_removed_files_are_told_apart(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    files = sorted((pool / "pool").iterdir())
    files[0].rename(files[0].with_name("renamed.parquet"))
    write_rows(files[1], small_rows()[1::4][:-1])
    files[2].unlink()
    found = run(recipe_for(pool), pool / "run").outcome
    assert found.parts == PartChanges(unchanged=1, renamed=1, changed=1, new=0, removed=1)


def test_content_that_changes_under_the_same_size_and_times_is_noticed_when_asked_for(pool: Path) -> None:
    file = write_rows(pool / "pool" / "x.jsonl", [{"id": "x", "source": "web", "text": "one text of so many letters"}])
    run(recipe_for(pool), pool / "run")
    run(recipe_for(pool), pool / "run")
    recorded = json.loads((pool / "run" / "files.json").read_bytes())
    status = file.stat()
    file.write_bytes(file.read_bytes().replace(b"one text", b"two text"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size
    found = run(recipe_for(pool), pool / "run", verify_input=True).outcome
    assert (found.parts.changed, found.parts.unchanged) == (1, 4)
    assert json.loads((pool / "run" / "files.json").read_bytes()) != recorded
