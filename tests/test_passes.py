"""One pass over parts: what a stage is shown, and what happens to one that breaks its word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from run_folders import counts, docs, recipe_for, run, small_rows, texts_read, write_rows

from curate.errors import StageError

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
