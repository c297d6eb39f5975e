"""One pass over parts: what a stage is shown, and what happens to one that breaks its word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folders import counts, docs, recipe_for, run, small_rows, texts_read, write_rows

from curate import spans
from curate.errors import StageError
from curate.pipelines.c4 import C4
from curate.pipelines.fineweb_quality import FinewebQuality
from curate.pipelines.gopher_quality import GopherQuality
from curate.pipelines.gopher_repetition import GopherRepetition
from curate.stage import TEXT, Context

#: A stage whose verbs a test writes; `seen` beside the pool collects what it was shown.
STAGE = '''
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None."""


class Mine:
    version = 1
    Params = Params

    def __init__(self, params, context):
        self.seen = Path(context.base) / "seen"

    def note(self, *what):
        with open(self.seen, "a") as file:
            print(*what, file=file)

'''
APPLIES = '''
    def reads(self):
        return ["__text__"]

    def fields(self):
        return pa.schema([("value", pa.int64())])

    def apply(self, state, batch):
        self.note(batch.num_rows)
        {body}
'''
JUDGES = '''
    def judge_reads(self):
        return ["curate_bytes"]

    def judge(self, batch):
        {body}
'''
FITS = '''
    def fit_reads(self):
        return ["curate_bytes"]

    def fit_part(self, batches):
        {body}

    def merge(self, partials):
        return pa.table({{"n": [sum(p["n"][0].as_py() for p in partials)]}})

    def close(self, merged, targets):
        return merged
'''
GOOD_APPLY = "return pa.record_batch([pc.cast(pc.utf8_length(batch.column(0)), pa.int64())], names=['value'])"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = small_rows()
    write_rows(tmp_path / "pool" / "0.parquet", rows[:200])
    write_rows(tmp_path / "pool" / "1.parquet", rows[200:])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def with_stage(folder: Path, verbs: str, *before: dict[str, Any]) -> dict[str, Any]:
    (folder / "mine.py").write_text(STAGE + verbs)
    return recipe_for(folder, stages=[*before, {f"{folder / 'mine.py'}:Mine": {"as": "mine"}}], target=False)


@pytest.mark.parametrize(
    ("verbs", "message"),
    [
        (APPLIES.format(body="return pa.record_batch([pa.array([1])], names=['value'])"), r"apply was given \d+ rows and must return as many .*got 1 rows"),
        (APPLIES.format(body="return pa.record_batch([pc.utf8_length(batch.column(0))], names=['other'])"), r"must return as many of \['value'\], got \d+ rows of \['other'\]"),
        (APPLIES.format(body="return [1, 2]"), "got list"),
        (APPLIES.format(body="return None"), "got NoneType"),
        (JUDGES.format(body="return pa.array([True]), pa.array(['x'])"), r"judge was given \d+ rows and returned 1 verdicts and 1 reasons"),
        (JUDGES.format(body="raise KeyError('of the stage')"), r"failed at or after .*0\.parquet, row 0 .*KeyError: 'of the stage'"),
        (FITS.format(body="return pa.table({'n': [next(batches).num_rows]})"), "fit_part stopped before the last batch"),
    ],
)  # fmt: skip
def test_a_stage_that_breaks_its_word_is_named(folder: Path, verbs: str, message: str) -> None:
    recipe = with_stage(folder, verbs)
    recipe["corpus"]["part_bytes"] = 1_000_000
    if "fit_part" in verbs:  # more than one batch, so that there is something left to read
        rows = [{"id": f"long-{n}", "text": "x" * 900_000, "source": "s", "score": 0.0} for n in range(12)]
        write_rows(folder / "pool" / "0.parquet", rows, row_group=1)
        recipe["corpus"]["part_bytes"] = 64_000_000
    with pytest.raises(StageError, match=f"(?s)stage 'mine'.*{message}"):
        run(recipe, folder / "run")
    assert not (folder / "run" / "mixture").exists()


def test_a_stage_is_shown_only_what_earlier_ones_kept(folder: Path) -> None:
    recipe = with_stage(folder, APPLIES.format(body=GOOD_APPLY), {"length": {"min_bytes": 300}})
    run(recipe, folder / "run")
    long = [row for row in small_rows() if len(row["text"].encode()) >= 300]
    assert sum(int(line) for line in (folder / "seen").read_text().split()) == len(long)
    found = {row["id"]: row["mine"] for row in docs(folder / "run").to_pylist()}
    assert {name: n for name, n in found.items() if n is not None} == {row["id"]: len(row["text"]) for row in long}


def test_stages_without_a_barrier_share_one_reading_of_the_text(folder: Path) -> None:
    (folder / "mine.py").write_text(STAGE + APPLIES.format(body=GOOD_APPLY))
    mine = f"{folder / 'mine.py'}:Mine"
    run(recipe_for(folder, stages=[{mine: {"as": f"m{n}"}} for n in range(4)], target=False), folder / "run")
    assert list(texts_read(folder / "run").values()) == [599]


def test_an_answer_of_a_neighbouring_type_is_cast_and_another_refused(folder: Path) -> None:
    verbs = APPLIES.format(body="return pa.record_batch([pc.cast(pc.utf8_length(batch.column(0)), pa.int32())], names=['value'])")
    run(with_stage(folder, verbs), folder / "run")
    assert str(docs(folder / "run").schema.field("mine").type) == "int64"
    verbs = APPLIES.format(body="return pa.record_batch([batch.column(0)], names=['value'])")
    with pytest.raises(StageError, match="stage 'mine'"):
        run(with_stage(folder, verbs), folder / "run")


def test_a_null_verdict_drops(folder: Path) -> None:
    verbs = JUDGES.format(body="return pa.nulls(batch.num_rows, pa.bool_()), pa.array(['no verdict'] * batch.num_rows)")
    run(with_stage(folder, verbs), folder / "run")
    assert counts(folder / "run") == {("mine", "no verdict"): 599}


def test_a_part_of_which_nothing_is_left_goes_through_every_verb(folder: Path) -> None:
    rows = [{"id": f"tiny-{n}", "text": "x", "source": "s", "score": 0.0} for n in range(5)]
    write_rows(folder / "pool" / "0.parquet", rows)
    body = "return pa.table({'n': [sum(b.num_rows for b in batches)]})"
    verbs = FITS.format(body=body) + APPLIES.format(body=GOOD_APPLY) + JUDGES.format(body="return pc.is_valid(batch.column(0)), pa.nulls(batch.num_rows, pa.string())")
    recipe = with_stage(folder, verbs, {"length": {"min_bytes": 20}})
    result = run(recipe, folder / "run")
    assert result.outcome.documents == 5 + 399
    assert counts(folder / "run")[("length", "fewer than 20 bytes")] >= 5
    run(recipe | {"stages": [{"length": {"min_bytes": 1}}, recipe["stages"][1]]}, folder / "run")
    run(recipe | {"stages": [{"length": {"min_bytes": 1}}, recipe["stages"][1]]}, folder / "fresh")
    assert docs(folder / "run").equals(docs(folder / "fresh"))


def test_the_measures_of_a_part_stand_in_its_rows_order(folder: Path) -> None:
    run(with_stage(folder, APPLIES.format(body=GOOD_APPLY)), folder / "run")
    files = [pq.read_table(f) for f in sorted((folder / "pool").glob("*.parquet"))]
    assert docs(folder / "run")["mine"].to_pylist() == [len(text) for t in files for text in t["text"].to_pylist()]


def test_rules_that_share_a_scan_measure_what_each_would_alone(tmp_path: Path) -> None:
    """Every document's columns, beside those of a stage that counts by itself on the text that it was shown."""
    rows = [row | {"text": f"Menu {n}\n{row['text']}\n\nThis is the end of the text, and of it.\n" * (1 + n % 3)} for n, row in enumerate(small_rows()[:120])]
    write_rows(tmp_path / "pool" / "0.parquet", rows)
    kept: dict[str, Any] = {"min_words": 10, "min_stop_words": None, "min_alphabetic_ratio": None, "max_mean_word_chars": None, "min_mean_word_chars": None}
    stages = [{"gopher_quality": kept}, {"fineweb_quality": {"as": "other", "short_line_chars": 7, "max_dup_line_chars_ratio": None, "max_short_line_ratio": None, "min_line_punct_ratio": None}},
              {"c4": {"min_sentences": 2, "curly_bracket": False}}, {"gopher_repetition": {"max_dup_line_ratio": 0.6, "max_dup_line_chars_ratio": 0.6}}, {"fineweb_quality": {}}]  # fmt: skip
    run(recipe_for(tmp_path, stages=stages, target=False), tmp_path / "run")
    found = docs(tmp_path / "run")
    text = {row["id"]: row["text"] for row in rows}
    changed = 0
    for label, stage, in_front in (("gopher_quality", GopherQuality, False), ("other", FinewebQuality, False), ("gopher_repetition", GopherRepetition, True), ("fineweb_quality", FinewebQuality, True)):
        params = stage.Params(short_line_chars=7) if label == "other" else stage.Params()
        own = stage(params, Context(label))
        names = [f"{label}_{name}" for name in own.fields().names]
        shown = [row for row in found.select(["id", *names]).to_pylist() if row[f"{label}_{own.fields().names[0]}"] is not None]
        assert len(shown) > 10
        column = pa.array([text[row["id"]] for row in shown])
        if in_front:
            cut = C4(C4.Params(min_sentences=2), Context("c4")).apply(None, pa.record_batch([column], names=[TEXT]))
            column = spans.applied(column, cut.column(spans.FIELD))
            changed += sum(c.as_py() > 0 for c in cut.column("cut_bytes"))
        alone = own.apply(None, pa.record_batch([column], names=[TEXT])).to_pylist()
        assert [{name: row[f"{label}_{name}"] for name in own.fields().names} for row in shown] == alone
    assert changed > 20
