"""Decontamination in a run: what is planted is found, nothing else is, and the item is named; whatever the order and the workers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from planted_items import KINDS, inside, sentence, text
from run_folders import Rows, counts, docs, run, texts_read, write_rows

from curate.catalog import OpenRun
from curate.errors import ConfigError
from curate.pipelines.decontaminate import Decontaminate, DecontaminateParams
from curate.show import explanation
from curate.stage import Context

ITEMS = 12


def planted(folder: Path) -> tuple[Rows, Rows]:
    """A set of ITEMS items in set.jsonl; a pool that holds each in each way, among as many documents that hold none."""
    draw = random.Random(5)
    items = [{"q": text(draw, draw.randint(2, 6)), "a": sentence(draw, draw.randint(3, 20))} for _ in range(ITEMS)]
    write_rows(folder / "set.jsonl", items)
    pool = [{"id": f"{kind} {i}", "text": plant(item["q"], draw), "source": "planted"} for kind, plant in KINDS.items() for i, item in enumerate(items)]
    pool += [{"id": f"clean {i}", "text": text(draw, draw.randint(1, 30)), "source": "clean"} for i in range(len(pool))]
    return items, pool


def recipe(folder: Path, pool: Rows, files: int = 2, **settings: Any) -> dict[str, Any]:
    for i in range(min(files, len(pool))):
        write_rows(folder / "pool" / f"{i}.parquet", pool[i::files])
    sets = {"sums": {"files": [str(folder / "set.jsonl")], "question": "q", "answer": "a"}}
    return {"name": "p", "corpus": {"paths": [str(folder / "pool")], "id": "id", "source": "source"}, "stages": [{"decontaminate": {"sets": sets, **settings}}]}


def stage(folder: Path, **settings: Any) -> Decontaminate:
    import msgspec

    sets = {"sums": {"files": ["set.jsonl"], "question": "q", "answer": "a"}}
    return Decontaminate(msgspec.convert({"sets": sets, **settings}, DecontaminateParams), Context("decontaminate", base=str(folder)))


def told(of: Decontaminate, texts: list[str], others: int = 0) -> Rows:
    """What a stage says of texts in a pool that also has `others` that share nothing."""
    pool = pa.record_batch([pa.array([*texts, *[f"filler number {i}" for i in range(others)]])], names=["t"])
    state = of.close(of.merge([of.fit_part(iter([pool]))]), {})
    found = of.apply(state, pool.slice(0, len(texts)))
    keep, reason = of.judge(pa.record_batch([found["value"], found["weak"], found["set"]], names=["v", "w", "s"]))
    return [{**row, "keep": k, "reason": r} for row, k, r in zip(found.to_pylist(), keep.to_pylist(), reason.to_pylist(), strict=True)]


def test_what_is_planted_is_found_and_nothing_else_is(tmp_path: Path) -> None:
    _, pool = planted(tmp_path)
    run(recipe(tmp_path, pool), tmp_path / "run")
    for row in docs(tmp_path / "run").to_pylist():
        kind, _, number = row["id"].rpartition(" ")
        if kind == "clean":
            assert (row["decontaminate"], row["decontaminate_set"], row["curate_keep"]) == (0.0, None, True), row
            continue
        assert (row["decontaminate_set"], row["decontaminate_row"], row["decontaminate_side"]) == ("sums", int(number), "question"), row
        assert row["decontaminate"] >= 0.15
        if kind != "10 % of words changed":  # a short item with two words changed may be flagged only
            assert not row["curate_keep"], row
        if kind in ("verbatim", "re-cased", "re-punctuated"):
            assert row["decontaminate_exact"]
    kept = counts(tmp_path / "run")
    assert kept["decontaminate", "holds an item of sums"] >= 5 * ITEMS


def test_neither_workers_nor_files_nor_their_order_show(tmp_path: Path) -> None:
    pool = planted(tmp_path)[1][::3]

    def rows(name: str, files: int, workers: int, order: int) -> list[str]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "set.jsonl").write_bytes((tmp_path / "set.jsonl").read_bytes())
        run(recipe(tmp_path / name, pool[::order], files), tmp_path / name / "run", workers=workers, publish=False)
        return sorted(map(repr, docs(tmp_path / name / "run").drop_columns(["doc", "file", "row"]).to_pylist()))

    assert rows("one", 1, 1, 1) == rows("other", 3, 2, -1)


def test_the_item_and_the_passage_are_named_and_explained(tmp_path: Path) -> None:
    items, pool = planted(tmp_path)
    run(recipe(tmp_path, pool), tmp_path / "run")
    (found,) = OpenRun(tmp_path / "run").explain("inside ten times as long 3")
    row = found["row"]
    assert row["decontaminate_passage"].startswith(items[3]["q"].lower().rstrip(".")[:250])
    said = explanation(found)
    for word in ("decontaminate_set = sums", "decontaminate_row = 3", "decontaminate_passage = ", "dropped by decontaminate: holds an item of sums"):
        assert word in said


def test_question_and_answer_are_checked_apart_and_a_short_one_alone_only_flags(tmp_path: Path) -> None:
    row = {"q": "how many legs has a common garden spider", "a": "eight legs on a common garden spider it is", "other": ""}
    write_rows(tmp_path / "set.jsonl", [row, {"q": "who", "a": "a b c d"}, {"q": sentence(random.Random(1), 30), "a": None}])
    of = stage(tmp_path)
    question, answer, both, equal, none = told(of, [f"so {row['q']} then", f"well {row['a']} ok", f"x {row['q']}? {row['a']}.", row["q"].upper(), "who a b c d"], 50)
    assert (question["side"], question["weak"], question["keep"], question["value"], question["passage"]) == ("question", True, True, 1.0, row["q"])
    assert (answer["side"], answer["weak"], answer["keep"], answer["set"]) == ("answer", True, True, "sums")
    assert (both["weak"], both["keep"], both["reason"], both["items"]) == (False, False, "holds an item of sums", 1)
    assert (equal["exact"], equal["keep"]) == (True, False)
    assert (none["set"], none["value"], none["keep"]) == (None, 0.0, True)  # under five words: not checkable
    assert of.audit()["sums"][:2] == (3, 2)


def test_what_many_documents_share_says_little(tmp_path: Path) -> None:
    """A document that has an item's beginning alone is told of where few documents have it."""
    begin = "write a short program that reads the file"
    write_rows(tmp_path / "set.jsonl", [{"q": f"{begin} and sorts its rows by the date in them then prints", "a": None}])
    of = stage(tmp_path)
    (rare,) = told(of, [begin + " x"], 100)
    assert rare["set"] == "sums"
    common = told(of, [begin + f" {i}" for i in range(100)])
    assert {row["set"] for row in common} == {None}


def test_a_long_passage_of_an_item_is_flagged_and_a_moved_drop_counts_nothing_again(tmp_path: Path) -> None:
    draw = random.Random(9)
    item = sentence(draw, 200)
    write_rows(tmp_path / "set.jsonl", [{"q": item, "a": None}])
    part = " ".join(item.split()[50:65])
    pool = [{"id": "part", "text": inside(part, draw), "source": "s"}, {"id": "none", "text": sentence(draw, 90), "source": "s"}]
    folder = tmp_path / "run"
    run(recipe(tmp_path, pool), folder)
    (row, _) = docs(folder).to_pylist()
    assert (row["curate_keep"], row["decontaminate_set"], row["decontaminate_passage"]) == (True, "sums", part)
    assert 0 < row["decontaminate"] < 0.15
    for drop, kept in ((0.02, 1), (0.5, 2)):
        run(recipe(tmp_path, pool, flag=0.01, drop=drop), folder)
        assert counts(folder)["kept", None] == kept
    assert texts_read(folder) == {}


def test_a_changed_set_is_held_against_the_pool_again(tmp_path: Path) -> None:
    _, pool = planted(tmp_path)
    asked = recipe(tmp_path, pool)
    run(asked, tmp_path / "run")
    assert counts(tmp_path / "run")["kept", None] < len(pool)
    write_rows(tmp_path / "set.jsonl", [{"q": "another question that no document of this pool holds", "a": None}])
    run(asked, tmp_path / "run")
    assert counts(tmp_path / "run")["kept", None] == len(pool)


@pytest.mark.parametrize("wrong", [{"sets": {}}, {"flag": 0}, {"flag": 0.6, "drop": 0.5}, {"drop": 1.1}, {"ngram": 5}, {"min_words": 3}, {"sets": {"x": {"files": ["gone.jsonl"]}}}])
def test_settings_that_cannot_be_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    write_rows(tmp_path / "set.jsonl", [{"q": "a b c d e", "a": None}])
    with pytest.raises(ConfigError):
        run(recipe(tmp_path, [{"id": "1", "text": "x", "source": "s"}], **wrong), tmp_path / "run")


def test_the_card_has_the_table_and_no_path(tmp_path: Path) -> None:
    items, pool = planted(tmp_path)
    write_rows(tmp_path / "set.jsonl", [*items, {"q": "too short", "a": None}, {"q": "a question that no document of the pool has", "a": None}])
    run(recipe(tmp_path, pool), tmp_path / "run")
    card = (tmp_path / "run" / "mixture" / "README.md").read_text()
    dropped = sum(row["decontaminate_keep"] is False for row in docs(tmp_path / "run").to_pylist())
    flagged = sum(row["decontaminate_set"] is not None for row in docs(tmp_path / "run").to_pylist()) - dropped
    fingerprint = Decontaminate.audit(stage(tmp_path))["sums"].fingerprint
    assert f"| sums | {ITEMS + 2} | {ITEMS + 1} | {ITEMS} | 0 | 0 | {dropped} | {flagged} | `{fingerprint}` |" in card
    assert "ITEMS_OF_SUMS" in card
    assert str(tmp_path) not in card + (tmp_path / "run" / "mixture" / "manifest.json").read_text()
    assert "set.jsonl" not in card
