"""What became of the documents, stage by stage, and examples of each reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from run_folders import call, counts, docs, recipe_for, run, small_rows, write_rows

from curate import funnel
from curate.catalog import OpenRun


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("funnel")
    rows = [row | {"text": None if n % 50 == 0 else row["text"]} for n, row in enumerate(small_rows())]
    write_rows(folder / "pool" / "0.jsonl", rows)
    run(recipe_for(folder, corpus={"on_error": "quarantine"}), folder / "run")
    return folder


def test_counts_are_those_of_docs_and_each_line_says_what_is_left(folder: Path) -> None:
    rows = funnel.counts(OpenRun(folder / "run")).to_pylist()
    assert {(r["stage"], r["reason"]): r["documents"] for r in rows} == counts(folder / "run")
    assert rows[0]["stage"] == "quarantine"
    assert rows[-1]["stage"] == "kept"
    left, behind = docs(folder / "run").num_rows, {}
    for row in rows[:-1]:
        left -= row["documents"]
        behind[row["stage"]] = left
    assert {r["stage"]: r["left"] for r in rows[:-1]} == behind
    assert left == rows[-1]["documents"]


def test_by_source_the_counts_are_split(folder: Path) -> None:
    done = call("funnel", folder / "run", "--by-source", "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    together: Counter[tuple[str, str | None]] = Counter()
    for row in rows:
        together[row["stage"], row["reason"]] += row["documents"]
    assert together == counts(folder / "run")
    kept = [d for d in docs(folder / "run").to_pylist() if d["curate_keep"]]
    assert {r["source"]: r["documents"] for r in rows if r["stage"] == "kept"} == Counter(d["source"] for d in kept)


def test_examples_are_of_their_reason_and_show_their_own_text(folder: Path) -> None:
    found = funnel.examples(OpenRun(folder / "run"), 5)
    texts = {row["id"]: row["text"] for row in small_rows()}
    place = {(d["file"], d["row"]): d for d in docs(folder / "run").to_pylist()}
    seen: Counter[tuple[str, str | None]] = Counter()
    for example in found:
        row = place[example.file, example.row]
        assert (row["curate_drop_stage"] or "kept", row["curate_drop_reason"]) == (example.stage, example.reason)
        assert (row["id"] if example.stage != "quarantine" else None) == (example.identity or None)
        assert example.text == (None if example.stage == "quarantine" else texts[row["id"]])
        seen[example.stage, example.reason] += 1
    assert seen == {key: min(5, n) for key, n in counts(folder / "run").items()}


def test_examples_do_not_depend_on_the_order_of_the_rows(folder: Path) -> None:
    write_rows(folder / "turned" / "0.jsonl", small_rows()[::-1])
    write_rows(folder / "straight" / "0.jsonl", small_rows())
    drawn = []
    for pool in ("turned", "straight"):
        run(recipe_for(folder, paths=[f"{pool}/*"]), folder / f"run-{pool}")
        drawn.append([(e.stage, e.reason, e.identity, e.text) for e in funnel.examples(OpenRun(folder / f"run-{pool}"), 3, seed=4)])
    assert drawn[0] == drawn[1]
    other = [(e.stage, e.reason, e.identity, e.text) for e in funnel.examples(OpenRun(folder / "run-straight"), 3, seed=5)]
    assert other != drawn[1]


def test_the_command_shows_both(folder: Path) -> None:
    done = call("funnel", folder / "run", "--examples", 2)
    assert done.returncode == 0, done.stderr
    assert "select: below the cut\n  " in done.stdout
    assert "\nkept\n  " in done.stdout
    ten = call("funnel", folder / "run", "--examples", "--seed", 0).stdout
    assert ten == call("funnel", "--examples", 10, folder / "run").stdout
    for line, number in ((f"{stage}: {reason}" if reason else stage, number) for (stage, reason), number in counts(folder / "run").items()):
        shown = ten.split(f"\n{line}\n")[1].split("\n\n")[0]
        assert len([one for one in shown.splitlines() if one.startswith("  ")]) == min(10, number)
    refused = call("funnel", folder / "run", "--examples", 2, "--format", "json")
    assert refused.returncode == 2
