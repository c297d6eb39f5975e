"""Differences of two runs: every number against a count by hand over the two wide tables."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from run_folders import STAGES, call, docs, recipe_for, run, small_rows, write_rows

from curate.diff import QUANTILES, Diff
from curate.errors import ConfigError

BUDGET: list[dict[str, Any]] = [*STAGES[:3], {"select": {"by": "dsir", "budget": "25%"}}]
OTHER: list[dict[str, Any]] = [{"length": {"min_bytes": 120, "max_words": 90}}, STAGES[1], {"dsir": {"ngrams": 1}}, {"select": {"by": "dsir", "budget": "20%"}}]


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two runs: other bounds, another DSIR, another budget, and a pool that lost a file's rows and won others."""
    rows = small_rows()
    write_rows(tmp_path / "pool" / "0.parquet", rows[:300])
    write_rows(tmp_path / "pool" / "1.parquet", rows[300:])
    run(recipe_for(tmp_path, stages=BUDGET), tmp_path / "a")
    write_rows(tmp_path / "pool" / "1.parquet", rows[320:])
    write_rows(tmp_path / "pool" / "2.parquet", [{"id": f"new-{i}", "source": "new", "text": f"A new document, number {i}. " * 9} for i in range(7)])
    run(recipe_for(tmp_path, stages=OTHER, seed=8), tmp_path / "b")
    return tmp_path


def fates(folder: Path) -> dict[str, tuple[str, str | None]]:
    table = docs(folder).to_pylist()
    return {r["curate_identity"]: ("kept" if r["curate_keep"] else r["curate_drop_stage"], r["curate_drop_reason"]) for r in table}


def test_every_document_has_its_fate_in_both(two: Path) -> None:
    a, b = fates(two / "a"), fates(two / "b")
    with Diff(two / "a", two / "b") as found:
        rows = found.sql("SELECT * FROM diff").to_pylist()
        told = found.summary()
    assert len(rows) == len({*a, *b})
    for row in rows:
        name = row["identity"]
        assert (row["a_fate"], row["a_reason"]) == a.get(name, ("absent", None))
        assert (row["b_fate"], row["b_reason"]) == b.get(name, ("absent", None))
        kept = (row["a_fate"] == "kept", row["b_fate"] == "kept")
        assert row["status"] == {(True, True): "both", (True, False): "only a", (False, True): "only b", (False, False): "neither"}[kept]
    expected = Counter((*a.get(n, ("absent", None)), *b.get(n, ("absent", None))) for n in {*a, *b})
    moved = {(m["a_fate"], m["a_reason"], m["b_fate"], m["b_reason"]): m["documents"] for m in told["moved"]}
    assert moved == {key: n for key, n in expected.items() if key[:2] != key[2:]}
    assert sum(row["documents"] for row in told["documents"]) == len(rows)
    assert {row["status"]: row["documents"] for row in told["documents"]} == Counter(row["status"] for row in rows)


def test_sources_lengths_and_scores_are_those_of_the_wide_tables(two: Path) -> None:
    with Diff(two / "a", two / "b") as found:
        told = found.summary()
    tables = {side: docs(two / side).to_pylist() for side in "ab"}
    for source in told["sources"]:
        for side in "ab":
            mine = [r for r in tables[side] if r["source"] == source["source"]]
            assert source[f"{side}_read"] == len(mine)
            assert source[f"{side}_kept"] == sum(r["curate_keep"] for r in mine)
            assert source[f"{side}_kept_bytes"] == sum(r["curate_bytes"] for r in mine if r["curate_keep"])
    assert {s["source"] for s in told["sources"]} == {r["source"] for side in "ab" for r in tables[side]}
    for side in "ab":
        kept = [r for r in tables[side] if r["curate_keep"]]
        lengths = told["lengths"][side]
        assert (lengths["documents"], lengths["bytes"]) == (len(kept), sum(r["curate_bytes"] for r in kept))
        for what in ("bytes", "words"):
            values = sorted(r[f"curate_{what}"] for r in kept)
            assert lengths[f"{what}_quantiles"] == [values[int(q * (len(values) - 1) + 0.5)] for q in QUANTILES]
    a, b = ({r["curate_identity"]: r["dsir"] for r in tables[side] if r["dsir"] is not None} for side in "ab")
    score = told["scores"]["dsir"]
    assert score["in_both"] == len(a.keys() & b.keys())
    assert score["changed"] == sum(a[n] != b[n] for n in a.keys() & b.keys())
    assert score["most"] == max(abs(a[n] - b[n]) for n in a.keys() & b.keys())
    values = sorted(r["dsir"] for r in tables["b"] if r["curate_keep"])
    assert score["kept_quantiles"]["b"] == [values[int(q * (len(values) - 1) + 0.5)] for q in QUANTILES]


def test_the_recipe_says_what_was_asked_otherwise_and_nothing_else(two: Path) -> None:
    with Diff(two / "a", two / "b") as found:
        settings = {row["setting"]: (row["a"], row["b"]) for row in found.recipe()}
        inputs = found.inputs()
    assert settings == {
        "seed": (7, 8), "stages.length.min_bytes": (20, 120), "stages.length.max_words": (None, 90), "stages.dsir.ngrams": (2, 1),
        "stages.select.budget": ("25%", "20%"),
    }  # fmt: skip
    assert inputs == {"same": 1, "changed": 1, "renamed": 0, "only_a": 0, "only_b": 1}


def test_a_run_beside_itself_has_no_difference(two: Path) -> None:
    with Diff(two / "a", two / "a") as found:
        told = found.summary()
    assert told["moved"] == told["recipe"] == []
    assert {row["status"] for row in told["documents"]} <= {"both", "neither"}
    assert all(score["changed"] == 0 for score in told["scores"].values())


def test_copies_of_one_identity_are_paired_one_by_one(tmp_path: Path) -> None:
    texts = {"a": ["x y z"] * 3 + ["one two"] * 2 + ["alone"], "b": ["x y z"] * 5 + ["one two"] * 2}
    for side, found in texts.items():
        write_rows(tmp_path / side / "pool" / "0.parquet", [{"source": "s", "text": text} for text in found])
        stages = [{"dedup_exact": {}}] if side == "b" else []
        run(recipe_for(tmp_path / side, stages=stages, ids=False, target=False), tmp_path / f"run-{side}")
    with Diff(tmp_path / "run-a", tmp_path / "run-b") as found:
        told = found.summary()
        copies = found.sql("SELECT identity, list(copy ORDER BY copy) AS copies FROM diff GROUP BY 1").to_pylist()
    assert sorted(row["copies"] for row in copies) == [[1], [1, 2], [1, 2, 3, 4, 5]]
    assert told["repeated"] == {"a": 2, "b": 2}
    assert {row["status"]: row["documents"] for row in told["documents"]} == {"both": 2, "only a": 4, "neither": 2}
    moved = {(m["a_fate"], m["b_fate"]): m["documents"] for m in told["moved"]}
    assert moved == {("kept", "dedup_exact"): 3, ("absent", "dedup_exact"): 2, ("kept", "absent"): 1}


def test_rows_that_were_set_aside_have_no_identity_and_are_paired_by_number(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": "a", "source": "s", "text": "a text"}, {"id": "", "source": "s", "text": "b text"}]
    bad = [{"id": f"bad{i}", "source": "s", "text": None} for i in range(3)]
    for side, count in (("a", 2), ("b", 3)):
        write_rows(tmp_path / side / "pool" / "0.parquet", [*rows, *bad[:count]])
        run(recipe_for(tmp_path / side, stages=[], target=False, corpus={"on_error": "quarantine"}), tmp_path / f"run-{side}")
    with Diff(tmp_path / "run-a", tmp_path / "run-b") as found:
        told = found.summary()
    assert {(m["a_fate"], m["b_fate"]): m["documents"] for m in told["moved"]} == {("absent", "quarantine"): 1}
    assert {row["status"]: row["documents"] for row in told["documents"]} == {"both": 2, "neither": 3}


def test_the_command_prints_answers_and_writes(two: Path) -> None:
    done = call("diff", two / "a", two / "b")
    assert done.returncode == 0, done.stderr
    assert "stages.length.min_bytes  20" in done.stdout
    assert "documents with another fate:" in done.stdout
    as_json = json.loads(call("diff", two / "a", two / "b", "--format", "json").stdout)
    with Diff(two / "a", two / "b") as found:
        assert as_json["documents"] == found.summary()["documents"]
        rows = found.sql("SELECT * FROM diff ORDER BY identity, copy")
    assert call("diff", two / "a", two / "b", "-o", two / "diff.parquet").returncode == 0
    assert pq.read_table(two / "diff.parquet").to_pylist() == rows.to_pylist()
    asked = call("diff", two / "a", two / "b", "--sql", "SELECT count(*) AS n FROM a_docs", "--format", "csv")
    assert asked.stdout.split() == ['"n"', "599"]
    assert sorted(p.name for p in two.iterdir()) == ["a", "b", "diff.parquet", "pool"]


def test_words_that_cannot_be_meant_are_refused(two: Path) -> None:
    wrong = call("diff", two / "a", two / "b", "--sql", "SELECT nothing FROM diff")
    assert (wrong.returncode, "SQL: " in wrong.stderr) == (2, True)
    assert call("diff", two / "a", two / "nowhere").returncode == 2
    form = call("diff", two / "a", two / "b", "--format", "csv")
    assert (form.returncode, "add --sql" in form.stderr) == (2, True)
    with pytest.raises(ConfigError, match="got nothing at"), Diff(two / "a", two / "b") as found:
        found.write(two / "no" / "diff.parquet")
