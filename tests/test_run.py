"""Runs: what is computed again and what is not, incremental runs, targets that overlap, and rows that balance."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import (
    SMALL,
    STAGES,
    Rows,
    chosen_texts,
    counts,
    docs,
    docs_without_place,
    funnel,
    lasting,
    leftovers,
    published,
    published_rows,
    recipe_for,
    run,
    small_rows,
    texts_read,
    write_rows,
)

from curate import api
from curate.api import load_recipe
from curate.errors import DataError
from curate.recipe import Recipe

#: Nothing in it depends on the whole pool but the last choice: a scorer-like outside stage between two filters.
SHOUT = '''
import msgspec
import pyarrow as pa
import pyarrow.compute as pc


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    weight: float = 1.0


class Shout:
    """How many exclamation marks and question marks a text has, times a weight."""

    version = 1
    Params = Params

    def __init__(self, params, context):
        self.params = params

    def reads(self):
        return ["__text__"]

    def fields(self):
        return pa.schema([("value", pa.float64())])

    def apply(self, state, batch):
        marks = pc.count_substring_regex(batch.column(0), pattern="[!?]")
        return pa.record_batch([pc.multiply(pc.cast(marks, pa.float64()), self.params.weight)], names=["value"])
'''


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A folder with the sample's pool in four files."""
    rows = small_rows()
    for n in range(4):
        write_rows(tmp_path / "pool" / f"{n}.parquet", rows[n::4])
    (tmp_path / "shout.py").write_text(SHOUT)
    return tmp_path


def shouting(pool: Path, **length: int) -> dict[str, Any]:
    stages: list[dict[str, Any]] = [{"length": length}, {f"{pool / 'shout.py'}:Shout": {"as": "shout"}}, {"select": {"by": "shout", "budget": "25%"}}]
    return recipe_for(pool, stages=stages, target=False)


# -- resuming ----------------------------------------------------------------------------------------------------------


def test_the_same_run_again_computes_nothing_and_publishes_the_same(pool: Path) -> None:
    first = run(recipe_for(pool), pool / "run")
    assert first.outcome.computed_parts == 4
    before = lasting(pool / "run")
    written = {f: f.stat().st_mtime_ns for f in (pool / "run" / "store").rglob("*.parquet")}
    again = run(recipe_for(pool), pool / "run")
    assert again.outcome.computed_parts == 0
    assert texts_read(pool / "run") == {}
    assert lasting(pool / "run") == before
    assert {f: f.stat().st_mtime_ns for f in (pool / "run" / "store").rglob("*.parquet")} == written
    assert again.mixture == first.mixture
    assert leftovers(pool / "run") == []


def test_a_stricter_bound_reads_no_text_and_equals_a_fresh_run(pool: Path) -> None:
    run(shouting(pool, min_bytes=20), pool / "run")
    run(shouting(pool, min_bytes=120), pool / "run")
    assert texts_read(pool / "run") == {}
    run(shouting(pool, min_bytes=120), pool / "fresh")
    assert published(pool / "run") == published(pool / "fresh")
    assert docs(pool / "run").equals(docs(pool / "fresh"))


def test_a_looser_bound_scores_only_the_rows_newly_needed(pool: Path) -> None:
    rows = small_rows()
    strict = sum(len(row["text"].encode()) >= 200 for row in rows)
    loose = sum(len(row["text"].encode()) >= 20 for row in rows)
    assert 100 < strict < loose - 100 < len(rows)
    run(shouting(pool, min_bytes=200), pool / "run")
    run(shouting(pool, min_bytes=20), pool / "run")
    assert sum(texts_read(pool / "run").values()) == loose - strict
    run(shouting(pool, min_bytes=20), pool / "fresh")
    assert published(pool / "run") == published(pool / "fresh")
    assert docs(pool / "run").equals(docs(pool / "fresh"))


def test_a_bound_moved_there_and_back_gives_the_bytes_of_a_fresh_run(pool: Path) -> None:
    for least in (200, 20, 300, 120):
        run(shouting(pool, min_bytes=least), pool / "run")
    assert texts_read(pool / "run") == {}
    run(shouting(pool, min_bytes=120), pool / "fresh")
    assert published(pool / "run") == published(pool / "fresh")
    assert docs(pool / "run").equals(docs(pool / "fresh"))
    assert funnel(pool / "run") == funnel(pool / "fresh")


def test_rows_newly_needed_reach_the_verdicts_and_scorers_that_follow(pool: Path) -> None:
    def recipe(least: int) -> dict[str, Any]:
        shout = f"{pool / 'shout.py'}:Shout"
        return recipe_for(pool, stages=[
            {"length": {"min_bytes": least}}, {shout: {"as": "shout"}}, {shout: {"as": "twice", "weight": 2.0}},
            {"length": {"max_bytes": 500, "as": "brief"}}, {"dsir": {}}, {"select": {"by": "dsir", "budget": 40}},
        ])  # fmt: skip

    for least in (200, 120, 20):
        run(recipe(least), pool / "run")
    run(recipe(20), pool / "fresh")
    assert published(pool / "run") == published(pool / "fresh")
    assert docs(pool / "run").equals(docs(pool / "fresh"))


def test_moved_bounds_before_a_fitted_scorer_equal_a_fresh_run(pool: Path) -> None:
    def recipe(least: int) -> dict[str, Any]:
        return recipe_for(pool, stages=[{"length": {"min_bytes": least}}, *STAGES[1:]])

    for least in (20, 200, 100):
        run(recipe(least), pool / "run")
        run(recipe(least), pool / f"fresh-{least}")
        assert published(pool / "run") == published(pool / f"fresh-{least}")
        assert docs(pool / "run").equals(docs(pool / f"fresh-{least}"))
    run(recipe(20), pool / "run")
    assert texts_read(pool / "run") == {}
    assert published(pool / "run") == published(pool / "fresh-20")


def test_a_new_budget_reads_no_text_to_score(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    stages = [*STAGES[:3], {"select": {"by": "dsir", "budget": 20}}]
    result = run(recipe_for(pool, stages=stages), pool / "run")
    assert result.outcome.computed_parts == 0
    assert result.outcome.kept == 20


def test_the_verdicts_after_a_choice_follow_the_choice(pool: Path) -> None:
    def recipe(weight: float, budget: int) -> dict[str, Any]:
        shout = f"{pool / 'shout.py'}:Shout"
        return recipe_for(pool, target=False, stages=[
            {shout: {"as": "shout", "weight": weight}}, {"select": {"by": "shout * length(source)", "budget": budget, "as": "first"}},
            {"length": {"max_bytes": 500}}, {"select": {"how": "random", "budget": 10}},
        ])  # fmt: skip

    for weight, budget in ((1.0, 100), (-1.0, 100), (-1.0, 60), (1.0, 100)):
        run(recipe(weight, budget), pool / "run")
        run(recipe(weight, budget), pool / f"fresh-{weight}-{budget}", store=pool / f"store-{weight}-{budget}")
        assert published(pool / "run") == published(pool / f"fresh-{weight}-{budget}")
        shutil.rmtree(pool / f"fresh-{weight}-{budget}")


def test_an_edited_stage_of_the_users_own_is_computed_again(pool: Path) -> None:
    run(shouting(pool, min_bytes=20), pool / "run")
    source = (pool / "shout.py").read_text()
    before = docs(pool / "run")["shout"].to_pylist()
    (pool / "shout.py").write_text(source.replace("[!?]", "[.]."))
    run(shouting(pool, min_bytes=20), pool / "run")
    assert sum(texts_read(pool / "run").values()) > 500
    assert docs(pool / "run")["shout"].to_pylist() != before


# -- a pool that changes -------------------------------------------------------------------------------------------------


def more_rows() -> Rows:
    return [{"id": f"new-{n}", "text": f"A new question {n}: what is {n} times {n + 1}?", "source": "new", "score": 0.1} for n in range(60)]


def test_added_files_are_read_alone_by_what_needs_no_fit(pool: Path) -> None:
    run(shouting(pool, min_bytes=20), pool / "run")
    write_rows(pool / "pool" / "0-more.parquet", more_rows())
    result = run(shouting(pool, min_bytes=20), pool / "run")
    assert result.outcome.computed_parts == 1
    assert texts_read(pool / "run") == {"quarantine + length + shout": 60}
    run(shouting(pool, min_bytes=20), pool / "fresh")
    assert published(pool / "run") == published(pool / "fresh")
    assert docs_without_place(pool / "run") == docs_without_place(pool / "fresh")
    assert counts(pool / "run") == counts(pool / "fresh")


def test_part_numbers_stay_when_a_file_comes_and_another_goes(pool: Path) -> None:
    run(shouting(pool, min_bytes=20), pool / "run")
    write_rows(pool / "pool" / "0-more.parquet", more_rows())
    run(shouting(pool, min_bytes=20), pool / "run")
    numbers = {Path(r["file"]).name: r["part"] for r in pq.read_table(pool / "run" / "parts.parquet").to_pylist()}
    assert numbers == {"0.parquet": 0, "0-more.parquet": 4, "1.parquet": 1, "2.parquet": 2, "3.parquet": 3}
    (pool / "pool" / "0-more.parquet").unlink()
    run(shouting(pool, min_bytes=20), pool / "run")
    write_rows(pool / "pool" / "later.parquet", more_rows()[:10])
    run(shouting(pool, min_bytes=20), pool / "run")
    numbers = {Path(r["file"]).name: r["part"] for r in pq.read_table(pool / "run" / "parts.parquet").to_pylist()}
    assert numbers == {"0.parquet": 0, "1.parquet": 1, "2.parquet": 2, "3.parquet": 3, "later.parquet": 5}


def test_an_incremental_refit_equals_a_fresh_run(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    write_rows(pool / "pool" / "0-more.parquet", more_rows())
    run(recipe_for(pool), pool / "run")
    assert texts_read(pool / "run")["quarantine + overlap + length"] == 60
    run(recipe_for(pool), pool / "fresh")
    assert published(pool / "run") == published(pool / "fresh")
    assert docs_without_place(pool / "run") == docs_without_place(pool / "fresh")
    assert counts(pool / "run") == counts(pool / "fresh")


def test_a_fitted_filter_of_the_users_own_judges_old_parts_anew_after_a_refit(pool: Path) -> None:
    shutil.copy(Path(__file__).parent / "trap.py", pool / "trap.py")
    stages = [{f"{pool / 'trap.py'}:Trap": {"verb": "fit", "whom": "nobody, it raises", "as": "trap"}}]
    (pool / "sprung").touch()

    def recipe() -> Recipe:
        return load_recipe(recipe_for(pool, stages=stages, target=False), base=pool)

    run(recipe(), pool / "run")
    before = counts(pool / "run")
    write_rows(pool / "pool" / "giant.parquet", [{"id": "giant", "text": "x" * 100_000, "source": "new", "score": 1.0}])
    run(recipe(), pool / "run")
    run(recipe(), pool / "fresh")
    assert counts(pool / "run") == counts(pool / "fresh") != before
    assert docs_without_place(pool / "run") == docs_without_place(pool / "fresh")


def test_a_frozen_state_scores_old_documents_as_before_and_reads_only_the_new(pool: Path) -> None:
    stages = [{"dsir": {"state": "frozen"}}, {"select": {"by": "dsir", "budget": "25%"}}]
    run(recipe_for(pool, stages=stages), pool / "run")
    before = {row["id"]: row["dsir"] for row in docs(pool / "run").to_pylist()}
    write_rows(pool / "pool" / "more.parquet", more_rows())
    run(recipe_for(pool, stages=stages), pool / "run")
    assert set(texts_read(pool / "run").values()) == {60}
    after = {row["id"]: row["dsir"] for row in docs(pool / "run").to_pylist()}
    assert {name: after[name] for name in before} == before
    refit = [{"dsir": {"state": "refit"}}, stages[1]]
    run(recipe_for(pool, stages=refit), pool / "run")
    other = {row["id"]: row["dsir"] for row in docs(pool / "run").to_pylist()}
    assert any(other[name] != before[name] for name in before)
    events = [json.loads(line) for line in (pool / "run" / "events.jsonl").read_text().splitlines()]
    assert any("the frozen state" in event.get("text", "") for event in events)


def test_a_frozen_state_is_not_used_for_another_target(pool: Path) -> None:
    stages = [{"dsir": {"state": "frozen"}}, {"select": {"by": "dsir", "budget": "25%"}}]
    run(recipe_for(pool, stages=stages), pool / "run")
    guide = write_rows(pool / "other.jsonl", [{"text": "Fold the onions through the ginger with a wooden spoon."}])
    recipe = recipe_for(pool, stages=stages) | {"targets": {"maths": {"guide": [str(guide)]}}}
    run(recipe, pool / "run")
    run(recipe, pool / "fresh")
    assert published(pool / "run") == published(pool / "fresh")


def test_a_removed_file_and_a_changed_file_equal_a_fresh_run(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    (pool / "pool" / "1.parquet").unlink()
    rows = pq.read_table(pool / "pool" / "2.parquet").to_pylist()
    write_rows(pool / "pool" / "2.parquet", [row | {"text": row["text"].upper()} for row in rows])
    result = run(recipe_for(pool), pool / "run")
    run(recipe_for(pool), pool / "fresh")
    assert result.outcome.documents == 599 - 150
    assert published(pool / "run") == published(pool / "fresh")
    assert docs_without_place(pool / "run") == docs_without_place(pool / "fresh")
    assert counts(pool / "run") == counts(pool / "fresh")


def test_a_renamed_file_is_known_by_its_content(pool: Path) -> None:
    run(recipe_for(pool), pool / "run")
    before = published(pool / "run")
    (pool / "pool" / "1.parquet").rename(pool / "pool" / "renamed.parquet")
    os.utime(pool / "pool" / "2.parquet", ns=(1, 1))
    result = run(recipe_for(pool), pool / "run")
    assert result.outcome.computed_parts == 0
    assert published(pool / "run") == before
    assert {Path(name).name for name in docs(pool / "run")["file"].to_pylist()} == {"0.parquet", "renamed.parquet", "2.parquet", "3.parquet"}


def test_a_file_given_twice_is_two_parts_of_one_content(pool: Path) -> None:
    shutil.copy(pool / "pool" / "0.parquet", pool / "pool" / "copy.parquet")
    result = run(recipe_for(pool, ids=False, stages=[{"dedup_exact": {}}], target=False), pool / "run")
    assert result.outcome.documents == 599 + 150
    assert result.outcome.kept == len({row["text"] for row in small_rows()})
    with pytest.raises(DataError, match=r"(?s)the id .* stands 2 times: .*0\.parquet, row .* and .*copy\.parquet, row"):
        run(recipe_for(pool), pool / "with-ids")
    assert not (pool / "with-ids" / "mixture").exists()


def test_two_recipes_share_a_store_and_what_is_in_it(pool: Path) -> None:
    run(recipe_for(pool), pool / "first", store=pool / "shared")
    other = recipe_for(pool, stages=[*STAGES[:3], {"select": {"by": "dsir", "budget": 12}}]) | {"name": "other"}
    result = run(other, pool / "second", store=pool / "shared")
    assert result.outcome.computed_parts == 0
    assert texts_read(pool / "second") == {}
    run(other, pool / "alone")
    assert published(pool / "second") == published(pool / "alone")
    assert not (pool / "second" / "store").exists()
    again = run(recipe_for(pool), pool / "first", store=pool / "shared")
    assert again.outcome.computed_parts == 0


def test_an_older_publication_stays_whole_when_the_choice_changes(pool: Path) -> None:
    first = run(recipe_for(pool), pool / "run").mixture
    assert first is not None
    held = {f.name: f.read_bytes() for f in first.rglob("*") if f.is_file()}
    second = run(recipe_for(pool, stages=[*STAGES[:3], {"select": {"by": "dsir", "budget": 12}}]), pool / "run").mixture
    assert second != first
    assert (pool / "run" / "mixture").resolve() == second
    assert {f.name: f.read_bytes() for f in first.rglob("*") if f.is_file()} == held


# -- targets that overlap ------------------------------------------------------------------------------------------------


def texts_of(name: str) -> list[str]:
    return [json.loads(line)["text"] for line in (SMALL / f"{name}.jsonl").read_text().splitlines()]


def test_a_test_document_in_the_pool_is_dropped_with_a_reason_and_counted(pool: Path) -> None:
    leaked = [{"id": f"leak-{n}", "text": text, "source": "leak", "score": 0.0} for n, text in enumerate(texts_of("test")[:7])]
    write_rows(pool / "pool" / "leak.parquet", leaked)
    result = run(recipe_for(pool, stages=[]), pool / "run")
    assert counts(pool / "run")[("overlap", "equals a document of the test of maths")] == 7
    assert result.outcome.kept == 599
    assert "leak" not in {row["source"] for row in published_rows(pool / "run")}
    assert "7 pool documents equal a document of the test of maths; the pool's copies are dropped" in result.outcome.warnings


def test_a_guide_document_in_the_pool_warns_with_counts_and_stays(pool: Path) -> None:
    copied = [{"id": f"copy-{n}", "text": text, "source": "copy", "score": 0.0} for n, text in enumerate(texts_of("guide")[:5])]
    write_rows(pool / "pool" / "copy.parquet", copied)
    result = run(recipe_for(pool, stages=[]), pool / "run")
    assert result.outcome.kept == 599 + 5
    assert "5 pool documents stand in the guide of maths too; they will score high for that alone" in result.outcome.warnings


def test_a_guide_document_in_a_test_is_an_error_with_counts(pool: Path) -> None:
    test = write_rows(pool / "test.jsonl", [{"text": text} for text in texts_of("test") + texts_of("guide")[:3]])
    recipe = recipe_for(pool, stages=[])
    recipe["targets"]["maths"]["test"] = [str(test)]
    with pytest.raises(DataError, match="3 in guide of maths and test of maths"):
        run(recipe, pool / "run")
    assert not (pool / "run").exists()


def test_a_guide_of_one_target_in_the_test_of_another_is_an_error(pool: Path) -> None:
    other = write_rows(pool / "other.jsonl", [{"text": text} for text in texts_of("guide")[:2]])
    guide = write_rows(pool / "guide.jsonl", [{"text": "of another kind"}])
    recipe = recipe_for(pool, stages=[])
    recipe["targets"]["other"] = {"guide": str(guide), "test": str(other)}
    with pytest.raises(DataError, match="2 in guide of maths and test of other"):
        run(recipe, pool / "run")


# -- row accounting ------------------------------------------------------------------------------------------------------


WORDS = ["", " ", "a", "an apple", "an apple a day", "naïve", "你好", "words words words words", "1 + 1 = 2\n", "x" * 40]
PIECES: list[dict[str, Any]] = [
    {"length": {"min_bytes": 2}},
    {"length": {"max_words": 3, "as": "brief"}},
    {"length": {"min_bytes": 1_000, "as": "nothing_left"}},
    {"dedup_exact": {}},
    {"dedup_exact": {"normalize": ["case", "space"], "as": "loose"}},
    {"select": {"how": "random", "budget": "50%"}},
    {"select": {"how": "random", "budget": 3, "as": "few"}},
    {"select": {"by": "n", "budget": 4, "where": "n IS NULL OR n < 3", "as": "best"}},
]
ROW = st.fixed_dictionaries(
    {"text": st.sampled_from([*WORDS, None, 7]), "source": st.sampled_from(["a", "b", None]), "n": st.sampled_from([None, 1, 2, 3])}
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.lists(ROW, min_size=1, max_size=9), min_size=1, max_size=3).filter(
        lambda files: any(isinstance(row["text"], str) for rows in files for row in rows)
    ),
    stages=st.lists(st.sampled_from(PIECES), max_size=4, unique_by=str),
)
def test_rows_read_are_kept_dropped_or_quarantined_and_the_funnel_is_docs(
    tmp_path_factory: pytest.TempPathFactory, files: list[Rows], stages: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    for n, rows in enumerate(files):
        write_rows(folder / "pool" / f"{n}.jsonl", rows)
    recipe = recipe_for(folder, stages=stages, ids=False, target=False, corpus={"on_error": "quarantine"})
    result = run(recipe, folder / "run")
    everything = [row for rows in files for row in rows]
    found = counts(folder / "run")
    bad = sum(not isinstance(row["text"], str) for row in everything)
    assert sum(found.values()) == result.outcome.documents == len(everything)
    assert sum(n for (stage, _), n in found.items() if stage == "quarantine") == bad
    assert found.get(("kept", None), 0) == result.outcome.kept == len(published_rows(folder / "run"))
    asked = result.sql(
        "SELECT coalesce(curate_drop_stage, 'kept') AS stage, curate_drop_reason AS reason, source, count(*) AS documents,"
        " sum(coalesce(curate_bytes, 0))::BIGINT AS bytes, sum(coalesce(curate_words, 0))::BIGINT AS words FROM docs GROUP BY ALL"
    )
    names = ("stage", "reason", "source", "documents", "bytes", "words")
    assert sorted(repr([row[n] for n in names]) for row in asked.to_dicts()) == sorted(repr([row[n] for n in names]) for row in funnel(folder / "run"))
    kept = docs(folder / "run").filter(docs(folder / "run")["curate_keep"])
    assert all(value is None for value in kept["curate_drop_reason"].to_pylist())
    dropped = docs(folder / "run").to_pylist()
    assert all(row["curate_drop_reason"] for row in dropped if not row["curate_keep"])


def test_a_run_that_keeps_nothing_publishes_nothing_but_says_so(pool: Path) -> None:
    result = run(recipe_for(pool, stages=[{"length": {"min_bytes": 10_000_000}}], target=False), pool / "run")
    assert result.outcome.kept == 0
    assert chosen_texts(pool / "run") == []
    assert counts(pool / "run") == {("length", "fewer than 10000000 bytes"): 599}


def test_a_guide_text_that_repeats_is_another_guide(pool: Path) -> None:
    def scores(times: int) -> list[float | None]:
        lines = [json.dumps({"text": "add one and two"})] * times + [json.dumps({"text": "a log line of an error"})]
        (pool / "twice.jsonl").write_text("\n".join(lines) + "\n")
        raw = {"corpus": {"paths": [str(pool / "pool")]}, "targets": {"t": {"guide": str(pool / "twice.jsonl")}}, "stages": [{"dsir": {}}]}
        found = api.run(raw, run=pool / "repeats", workers=1)
        return found.arrow("SELECT dsir FROM docs ORDER BY doc")["dsir"].to_pylist()

    assert scores(1) != scores(5)
