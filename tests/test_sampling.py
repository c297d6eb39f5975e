"""Samples that stages train on: whose they are, how much they hold, and that neither cuts nor crashes change them."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import call, command, docs, lasting, recipe_for, run, small_rows, write_recipe, write_rows

from curate import ledger
from curate.api import open_run
from curate.errors import ConfigError, StageError
from curate.randomness import bits, keys_of, stream
from curate.sampling import Bounds, Drawn, folds

TESTS = Path(__file__).parent
STAGE = f"{TESTS / 'sampled.py'}:Sampled"
ROWS = [row for i, row in enumerate(small_rows()) if i % 3 == 0]


def recipe(folder: Path, *, before: list[dict[str, Any]] | None = None, seed: int = 7, ids: bool = True, **own: Any) -> dict[str, Any]:
    return recipe_for(folder, stages=[*(before or []), {STAGE: {"as": "drawn", **own}}], ids=ids, target=False, seed=seed)


def state_of(folder: Path) -> list[dict[str, Any]]:
    """What the stage was trained on, in order."""
    (row,) = [r for r in pq.read_table(folder / "stages.parquet").to_pylist() if r["label"] == "drawn"]
    return pq.read_table(folder / "store" / row["key"] / "state" / Path(row["state"]).name).to_pylist()  # type: ignore[no-any-return]


def expected(rows: list[dict[str, Any]], name: str = "pool", seed: int = 7) -> list[str]:
    """The ids of rows in the order of their draw, by the documented definition."""
    ids = [row["id"] for row in rows]
    drawn = bits(keys_of(pa.array(ids)), stream(seed, "sampled", "sample", name))
    return [ids[i] for i in np.argsort(drawn)]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    write_rows(tmp_path / "pool" / "0.parquet", ROWS[:120])
    write_rows(tmp_path / "pool" / "1.parquet", ROWS[120:], row_group=7)
    return tmp_path


def test_the_sample_is_the_beginning_of_an_order_by_identity_and_seed(pool: Path) -> None:
    run(recipe(pool, rows=9), pool / "run")
    found = state_of(pool / "run")
    assert [row["curate_identity"] for row in found] == expected(ROWS)[:9]
    texts = {row["id"]: row["text"] for row in ROWS}
    assert [row["__text__"] for row in found] == [texts[row["curate_identity"]] for row in found]
    inside = docs(pool / "run").filter(pa.compute.equal(docs(pool / "run")["drawn"], 1))
    assert set(inside["curate_identity"].to_pylist()) == set(expected(ROWS)[:9])


def test_another_seed_draws_others_and_a_pool_smaller_than_the_bound_is_all_in(pool: Path) -> None:
    run(recipe(pool, rows=9, seed=8), pool / "a")
    assert [row["curate_identity"] for row in state_of(pool / "a")] == expected(ROWS, seed=8)[:9] != expected(ROWS)[:9]
    run(recipe(pool, rows=10_000), pool / "b")
    assert [row["curate_identity"] for row in state_of(pool / "b")] == expected(ROWS)


def test_bytes_end_a_sample_before_the_document_that_does_not_fit(pool: Path) -> None:
    sizes = {row["id"]: len(row["text"].encode()) for row in ROWS}
    order = expected(ROWS)
    most = sum(sizes[i] for i in order[:30]) + sizes[order[30]] - 1
    fitting = [i for i in order if sizes[i] <= most // 64]
    held, total = [], 0
    for i in fitting:
        if total + sizes[i] > most:
            break
        held.append(i)
        total += sizes[i]
    assert 5 < len(held) < len(ROWS)
    result = run(recipe(pool, rows=1000, bytes=most), pool / "run")
    assert [row["curate_identity"] for row in state_of(pool / "run")] == held
    assert any(f"{len(order) - len(fitting):,} documents of more than {most // 64:,} bytes" in w for w in result.outcome.warnings)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_cut_of_the_files_and_no_number_of_workers_shows(pool: Path, workers: int) -> None:
    run(recipe(pool, rows=40, extra=["source"]), pool / "run")
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    for n in range(7):
        write_rows(pool / "other" / f"{n}.jsonl", shuffled[n::7])
    run(recipe_for(pool, paths=["other/*"], stages=[{STAGE: {"as": "drawn", "rows": 40, "extra": ["source"]}}], target=False), pool / "cut", workers=workers)
    assert state_of(pool / "cut") == state_of(pool / "run")
    assert sorted(docs(pool / "cut").select(["id", "drawn"]).to_pylist(), key=str) == sorted(docs(pool / "run").select(["id", "drawn"]).to_pylist(), key=str)


def test_copies_without_ids_are_drawn_together_and_told_apart_by_their_row(tmp_path: Path) -> None:
    rows = [{"text": f"text number {i // 4}", "source": f"s{i % 4}"} for i in range(80)]
    write_rows(tmp_path / "pool" / "a.jsonl", rows)
    run(recipe(tmp_path, ids=False, rows=10, extra=["source"]), tmp_path / "run")
    first = state_of(tmp_path / "run")
    for n in range(3):
        write_rows(tmp_path / "other" / f"{n}.jsonl", random.Random(3).sample(rows, 80)[n::3])
    run(recipe_for(tmp_path, paths=["other/*"], ids=False, stages=[{STAGE: {"as": "drawn", "rows": 10, "extra": ["source"]}}], target=False), tmp_path / "cut")
    assert state_of(tmp_path / "cut") == first
    assert [row["__text__"] for row in first[:4]] == [first[0]["__text__"]] * 4
    assert sorted(row["source"] for row in first[:4]) == ["s0", "s1", "s2", "s3"]


def test_documents_that_were_dropped_before_are_not_drawn_and_a_changed_text_is_shown_as_it_is(pool: Path) -> None:
    before = [{"length": {"min_bytes": 300}}, {"repeated_lines": {"min_documents": 2, "min_bytes": 0}}]
    run(recipe(pool, before=before, rows=1000), pool / "run")
    kept = {row["id"] for row in ROWS if len(row["text"].encode()) >= 300}
    found = state_of(pool / "run")
    assert [row["curate_identity"] for row in found] == [i for i in expected(ROWS) if i in kept]
    assert all(len(row["__text__"].encode()) == row["curate_bytes"] for row in found)
    originals = {row["id"]: row["text"] for row in ROWS}
    assert any(row["__text__"] != originals[row["curate_identity"]] for row in found)


def test_samples_by_a_column_have_orders_of_their_own(pool: Path) -> None:
    names = sorted({row["source"] for row in ROWS})[:2]
    run(recipe(pool, rows=6, by="source", names=names), pool / "run")
    found = state_of(pool / "run")
    for name in names:
        own = [row["curate_identity"] for row in found if row["sample"] == name]
        assert own == expected([row for row in ROWS if row["source"] == name], name)[:6]
        assert own


def test_the_stage_trains_once_and_again_only_for_another_sample(pool: Path) -> None:
    own = {"rows": 6, "seen": str(pool / "seen")}
    run(recipe(pool, **own), pool / "run")
    before = lasting(pool / "run")
    run(recipe(pool, **own), pool / "run", verify_input=True)
    loosened = recipe(pool, before=[{"length": {"min_bytes": 1}}], **own)
    run(loosened, pool / "run")  # another verdict, the same documents: the state is there
    assert len((pool / "seen").read_text().splitlines()) == 1
    run(recipe(pool, **own), pool / "run")
    assert {k: v for k, v in lasting(pool / "run").items() if k in before} == before
    write_rows(pool / "pool" / "2.parquet", [row | {"id": f"{row['id']}-{n}"} for n in range(40) for row in ROWS[:5]])
    run(recipe(pool, **own), pool / "run")
    assert len((pool / "seen").read_text().splitlines()) == 2
    run(recipe(pool, rows=6), pool / "fresh")
    assert state_of(pool / "fresh") == state_of(pool / "run")


def test_a_frozen_state_stays_and_is_made_again_of_its_own_sample(pool: Path) -> None:
    frozen = recipe(pool, rows=6, state="frozen", seen=str(pool / "seen"))
    run(frozen, pool / "run")
    first = state_of(pool / "run")
    write_rows(pool / "pool" / "2.parquet", [row | {"id": f"{row['id']}-{n}"} for n in range(40) for row in ROWS[:5]])
    result = run(frozen, pool / "run")
    assert any("frozen" in line for line in [str(w.state) for w in result.outcome.stages])
    assert state_of(pool / "run") == first
    assert len((pool / "seen").read_text().splitlines()) == 1
    found = ledger.read(pool / "run")
    assert found is not None
    next(found.path(e) for e in found.entries if e.kind == "state").unlink()
    run(frozen, pool / "run")
    assert state_of(pool / "run") == first
    found = ledger.read(pool / "run")
    assert found is not None
    for entry in found.entries:
        if entry.kind in ("state", "fit"):
            found.path(entry).unlink()
    again = run(frozen, pool / "run").outcome
    assert any("frozen state" in warning and "is gone" in warning for warning in again.warnings)


def test_a_frozen_state_and_its_listing_that_are_both_gone_are_made_again_where_the_pool_is_as_it_was(pool: Path) -> None:
    frozen = recipe(pool, rows=6, state="frozen")
    run(frozen, pool / "run")
    before = lasting(pool / "run")
    found = ledger.read(pool / "run")
    assert found is not None
    gone = [found.path(entry) for entry in found.entries if entry.kind in ("state", "fit")]
    assert len(gone) == 2
    for path in gone:
        path.unlink()
    outcome = run(frozen, pool / "run").outcome
    assert not [warning for warning in outcome.warnings if "gone" in warning]
    assert lasting(pool / "run") == before
    next(path for path in gone if path.parent.name == "fit").unlink()
    run(frozen, pool / "run")
    assert lasting(pool / "run") == before


def test_a_run_that_is_killed_while_it_trains_ends_with_the_same_bytes(pool: Path) -> None:
    (pool / "trap.py").write_text(
        f"import os, sys\nsys.path.insert(0, {str(TESTS)!r})\nfrom sampled import Sampled as S\nclass Sampled(S):\n"
        "    def fit_sample(self, samples, targets):\n        if os.environ.get('DIE'):\n            os.kill(os.getpid(), 9)\n        return super().fit_sample(samples, targets)\n"
    )
    file = write_recipe(pool / "r.yaml", recipe_for(pool, stages=[{"trap.py:Sampled": {"as": "drawn", "rows": 6}}], target=False))
    assert call("run", file, "--run", pool / "run", DIE="1").returncode == -9
    assert call("run", file, "--run", pool / "run").returncode == 0
    assert call("run", file, "--run", pool / "whole").returncode == 0
    assert lasting(pool / "run") == lasting(pool / "whole")


def test_a_takedown_names_the_state_that_was_trained_on_the_document(pool: Path) -> None:
    from curate.removal import take_down

    run(recipe(pool, rows=6), pool / "run")
    order = expected(ROWS)
    done = take_down(pool / "run", ids=[order[2]], dry_run=True)
    assert [(f.label, f.documents) for f in done.fitted] == [("drawn", 1)]
    assert take_down(pool / "run", ids=[order[6]], dry_run=True).fitted == ()
    take_down(pool / "run", ids=[order[2]])
    assert [row["curate_identity"] for row in state_of(pool / "run")] == [*order[:2], *order[3:7]]
    assert open_run(pool / "run").folder


def test_a_stage_with_two_ways_to_its_state_is_refused(pool: Path) -> None:
    (pool / "both.py").write_text(f"import sys\nsys.path.insert(0, {str(TESTS)!r})\nfrom sampled import Sampled\nclass Both(Sampled):\n    def fit_part(self, batches):\n        pass\n")
    with pytest.raises(ConfigError, match="fit_part and fit_sample"):
        run(recipe_for(pool, stages=[{f"{pool / 'both.py'}:Both": {}}], target=False), pool / "run")


def test_what_fit_sample_raises_says_which_stage_it_was(pool: Path) -> None:
    (pool / "bad.py").write_text(f"import sys\nsys.path.insert(0, {str(TESTS)!r})\nfrom sampled import Sampled\nclass Bad(Sampled):\n    def fit_sample(self, samples, targets):\n        raise KeyError('no')\n")
    with pytest.raises(StageError, match="failed in fit_sample: KeyError"):
        run(recipe_for(pool, stages=[{f"{pool / 'bad.py'}:Bad": {"as": "bad"}}], target=False), pool / "run")


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 row"):
        Bounds(0)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 50)), max_size=60), st.integers(1, 30), st.one_of(st.none(), st.integers(64, 600)), st.integers(1, 9))
def test_drawing_part_by_part_is_drawing_at_once(documents: list[tuple[int, int]], rows: int, most: int | None, step: int) -> None:
    keys = np.array([k for k, _ in documents], np.uint64)
    sizes = np.array([s for _, s in documents], np.int64)
    doc = np.arange(len(documents))
    drawn = Drawn(Bounds(rows, most), 5)
    for at in range(0, len(doc), step):
        drawn.add(doc[at : at + step], keys[at : at + step], sizes[at : at + step])
        drawn._cut()
    ties = {int(d): (f"{d:05}", "") for d in drawn.tied()}
    order = sorted((i for i in doc.tolist() if most is None or sizes[i] <= most // 64), key=lambda i: (int(bits(keys[i : i + 1], 5)[0]), i))
    held: list[int] = []
    for i in order:
        if len(held) == rows or (most is not None and sum(sizes[held].tolist()) + sizes[i] > most):
            break
        held.append(i)
    assert drawn.chosen(ties).tolist() == held


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=40), st.integers(0, 5))
def test_a_fold_is_the_last_bit_of_the_hash_wherever_it_stands(hashes: list[bytes], skip: int) -> None:
    column = pa.array(hashes, pa.binary(16))
    assert folds(column.slice(skip)).tolist() == [h[15] % 2 for h in hashes[skip:]]
    assert folds(pa.chunked_array([column, column.slice(skip)])).tolist() == [h[15] % 2 for h in [*hashes, *hashes[skip:]]]


def test_folds_halve_texts() -> None:
    hashes = pa.array([xxhash.xxh3_128_digest(f"text {i}".encode()) for i in range(4000)], pa.binary(16))
    assert abs(int(folds(hashes).sum()) - 2000) < 150  # 4.7 standard deviations


def test_the_listing_says_who_was_drawn(pool: Path) -> None:
    run(recipe(pool, rows=4), pool / "run")
    found = ledger.read(pool / "run")
    assert found is not None
    (listing,) = [found.path(e) for e in found.entries if e.kind == "fit"]
    assert listing.name.startswith("sample-")
    assert pq.read_table(listing)["curate_identity"].to_pylist() == expected(ROWS)[:4]
    assert json.loads(call("status", pool / "run", "--json").stdout)


def test_members_of_a_shared_run_draw_and_train_once(pool: Path) -> None:
    stages = [{STAGE: {"as": "drawn", "rows": 6, "seen": "seen"}}]
    file = write_recipe(pool / "r.yaml", recipe_for(pool, stages=stages, target=False))
    words = command("run", file, "--run", pool / "run", "--workers", 1, "--join")
    both = [subprocess.Popen(words, env=os.environ | {"CURATE_HOST": host}, stderr=subprocess.PIPE, text=True) for host in ("a", "b")]
    assert [process.communicate(timeout=100)[1] and process.returncode for process in both] == [0, 0]
    assert len((pool / "seen").read_text().splitlines()) == 1
    run(recipe(pool, rows=6), pool / "alone")
    assert state_of(pool / "run") == state_of(pool / "alone")
