"""`curate prune`: what nothing refers to goes, all else stays, whoever shares the store and whatever dies."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from run_folders import (
    STAGES,
    call,
    lasting,
    leftovers,
    published,
    recipe_for,
    run,
    small_rows,
    write_pool,
    write_recipe,
    write_rows,
)

from curate import ledger, sharing
from curate.errors import ConfigError, DataError, RunHeldError
from curate.lease import held
from curate.prune import Pruned, prune
from curate.verify import verify

TESTS = Path(__file__).parent


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A folder with the sample's pool in three files."""
    return write_pool(tmp_path)


def recipe(pool: Path, least: int = 20, budget: str = "10%", **more: Any) -> dict[str, Any]:
    stages = [{"length": {"min_bytes": least}}, *STAGES[1:-1], {"select": {"by": "dsir", "how": "resample", "budget": budget}}]
    return recipe_for(pool, stages=stages, **more)


def files_in(folder: Path) -> set[str]:
    """All files below a folder but leases."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and ".lease" not in p.parts}


def referred(folder: Path) -> set[Path]:
    found = ledger.read(folder)
    assert found is not None
    return {found.path(entry) for entry in found.entries}


def of_kind(found: Pruned, kind: str) -> int:
    return next(removed.files for removed in found.removed if removed.kind == kind)


def holds(folder: Path) -> None:
    report = verify(folder, workers=1)
    assert report.holds, [fault.what for fault in report.faults]


# -- one run ----------------------------------------------------------------------------------------------------------


def test_what_earlier_settings_and_inputs_left_goes_and_the_run_has_nothing_to_do(pool: Path) -> None:
    fresh = run(recipe(pool, 30, "5%"), pool / "fresh").folder
    for least, budget in ((20, "10%"), (25, "10%"), (30, "10%")):
        run(recipe(pool, least, budget), pool / "run")
    write_rows(pool / "pool" / "more.parquet", [{**r, "id": f"more {r['id']}"} for r in small_rows()[:40]])
    run(recipe(pool, 30, "5%"), pool / "run")
    (pool / "pool" / "more.parquet").unlink()
    run(recipe(pool, 30, "5%"), pool / "run")
    expected = published(pool / "run")
    before = files_in(pool / "run")
    found = prune(pool / "run")
    gone = before - files_in(pool / "run")
    assert len(gone) == sum(removed.files for removed in found.removed) > 20
    assert not gone & {str(p.relative_to(pool / "run")) for p in referred(pool / "run")}
    listed = {str(p.relative_to(pool / "run")) for p in referred(pool / "run")}
    assert {name for name in files_in(pool / "run") if name.startswith(("store/", "mixtures/", ".docs/"))} == {
        name for name in listed if name.startswith(("store/", "mixtures/", ".docs/"))
    }
    assert published(pool / "run") == expected == published(fresh)
    assert not [p for p in (pool / "run" / "store").rglob("*") if p.is_dir() and not any(p.iterdir()) and p.name != "tmp"]
    holds(pool / "run")
    assert run(recipe(pool, 30, "5%"), pool / "run").outcome.computed_parts == 0
    assert lasting(pool / "run").keys() == {*listed_as_lasting(listed), *(f"mixture/{name}" for name in expected)}
    assert of_kind(prune(pool / "run"), "store files") == 0


def listed_as_lasting(listed: set[str]) -> set[str]:
    return {n for n in listed if n.startswith(("store/", ".docs/")) or n in ("funnel.parquet", "parts.parquet", "stages.parquet")}


def test_a_dry_run_says_the_same_and_removes_nothing(pool: Path) -> None:
    run(recipe(pool, 20), pool / "run")
    run(recipe(pool, 30), pool / "run")
    before = files_in(pool / "run")
    said = prune(pool / "run", dry_run=True)
    assert files_in(pool / "run") == before
    done = prune(pool / "run")
    assert [(r.kind, r.paths, r.files, r.bytes) for r in said.removed] == [(r.kind, r.paths, r.files, r.bytes) for r in done.removed]
    assert done.bytes > 0


@pytest.mark.parametrize(("keep", "left"), [(1, 1), (2, 2), (3, 3), (9, 4)])
def test_the_newest_publications_stay_and_the_current_one_always(pool: Path, keep: int, left: int) -> None:
    names = [run(recipe(pool, budget=b), pool / "run").mixture for b in ("5%", "10%", "15%", "20%")]
    for age, name in zip((40, 30, 20, 10), names, strict=True):
        assert name is not None
        os.utime(name / "manifest.json", (1e9 - age, 1e9 - age))
    run(recipe(pool, budget="5%"), pool / "run")  # the oldest is the current one again
    prune(pool / "run", keep=keep)
    order = [names[0], names[3], names[2], names[1]]
    assert sorted((pool / "run" / "mixtures").iterdir()) == sorted(p for p in order[:left] if p is not None)
    holds(pool / "run")


def test_a_frozen_state_stays_while_its_stage_is_away(pool: Path) -> None:
    frozen = [{"length": {"min_bytes": 20}}, {"dsir": {"state": "frozen"}}, {"select": {"by": "dsir", "how": "top_k", "budget": 50}}]
    run(recipe_for(pool, stages=frozen), pool / "run")
    kept = lasting(pool / "run")
    run(recipe_for(pool, stages=frozen[:1], target=False), pool / "run")
    [state] = [pool / "run" / name for name in kept if "/state/" in name and not name.endswith("targets.parquet")]
    assert state not in referred(pool / "run")
    prune(pool / "run")
    assert state.exists()
    again = run(recipe_for(pool, stages=frozen), pool / "run")
    assert any("frozen state" in json.loads(line).get("text", "") for line in (again.folder / "events.jsonl").read_text().splitlines()[-12:])
    assert {k: v for k, v in lasting(pool / "run").items() if "/state/" in k} == {k: v for k, v in kept.items() if "/state/" in k}


def test_what_is_not_ours_in_a_store_stays(pool: Path) -> None:
    (pool / "shared" / "mine").mkdir(parents=True)
    for name in ("mine/thesis.tex", "notes.parquet", "0123.parquet"):
        (pool / "shared" / name).write_text("years of work")
    run(recipe(pool, 20), pool / "run", store=pool / "shared")
    run(recipe(pool, 30), pool / "run", store=pool / "shared")
    assert prune(pool / "run").bytes > 0
    for name in ("mine/thesis.tex", "notes.parquet", "0123.parquet"):
        assert (pool / "shared" / name).read_text() == "years of work"


def test_leftovers_of_the_dead_go(pool: Path) -> None:
    run(recipe(pool), pool / "run")
    for place in ("store/tmp/0", ".docs/" + "0" * 32, "mixtures/" + "1" * 32):
        (pool / "run" / place).mkdir(parents=True)
        (pool / "run" / place / "half").write_text("half")
    found = prune(pool / "run")
    assert [of_kind(found, kind) for kind in ("leftovers", "wide tables", "publications")] == [1, 1, 1]
    assert leftovers(pool / "run") == []
    holds(pool / "run")


def test_a_folder_without_a_finished_run_is_refused(pool: Path) -> None:
    with pytest.raises(ConfigError, match="expected a run folder"):
        prune(pool / "nothing")
    assert not (pool / "nothing").exists()
    run(recipe(pool), pool / "run")
    (pool / "run" / "ledger.parquet").unlink()
    before = files_in(pool / "run")
    with pytest.raises(DataError, match="has finished"):
        prune(pool / "run")
    assert files_in(pool / "run") == before


# -- a shared store ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(pool: Path) -> Path:
    """Two runs, a and b, of different recipes over one store; both have left something of earlier settings."""
    for name, least in (("a", 20), ("b", 30)):
        for budget in ("5%", "10%"):
            run(recipe(pool, least, budget), pool / name, store=pool / "shared")
        run(recipe(pool, least + 1, "10%"), pool / name, store=pool / "shared")
    return pool


def test_what_any_run_of_the_store_refers_to_stays(shared: Path) -> None:
    found = prune(shared / "a")
    assert found.runs == [shared / "a", shared / "b"]
    assert of_kind(found, "store files") > 5
    for name, least in (("a", 21), ("b", 31)):
        holds(shared / name)
        assert run(recipe(shared, least), shared / name, store=shared / "shared").outcome.computed_parts == 0
    union = {p for name in "ab" for p in referred(shared / name) if p.is_relative_to(shared / "shared")}
    assert {shared / "shared" / n for n in files_in(shared / "shared") if not n.startswith("runs/")} == union


def test_what_is_remembered_of_a_reference_goes_with_the_last_run_that_is_held_against_it(pool: Path) -> None:
    store = pool / "shared"
    remembered = {}
    for name in ("x", "y"):
        write_rows(pool / f"{name}.jsonl", [{"text": f"published before, in {name}"}])
        held_against = recipe_for(pool, stages=[{"dedup_exact": {"against": [str(pool / f"{name}.jsonl")]}}], target=False)
        run(held_against, pool / f"run-{name}", store=store)
        remembered[name] = next(p for p in (store / "against").glob("*.json") if p not in remembered.values())
    prune(pool / "run-x")
    assert set((store / "against").glob("*.json")) == set(remembered.values())
    run(recipe_for(pool, stages=[{"dedup_exact": {}}], target=False), pool / "run-x", store=store)
    assert remembered["x"] in next(found.paths for found in prune(pool / "run-x", dry_run=True).removed if found.kind == "store files")
    prune(pool / "run-y")
    assert list((store / "against").glob("*.json")) == [remembered["y"]]
    assert run(held_against, pool / "run-y", store=store).outcome.computed_parts == 0
    holds(pool / "run-y")


def test_a_lock_that_does_not_say_what_its_run_is_held_against_stops_a_prune(shared: Path) -> None:
    (shared / "b" / "recipe.lock.json").write_bytes(b'{"against": 3}')
    before = files_in(shared)
    with pytest.raises(DataError, match=r"b was held against.*recipe\.lock\.json"):
        prune(shared / "a")
    assert files_in(shared) == before


def test_a_store_in_a_run_folder_that_others_use_counts_its_owner(pool: Path) -> None:
    run(recipe(pool, 20), pool / "a")
    run(recipe(pool, 30), pool / "b", store=pool / "a" / "store")
    for name in "ab":
        assert prune(pool / name).runs == [pool / "a", pool / "b"]
        holds(pool / "a")
        holds(pool / "b")


def test_a_run_whose_folder_is_gone_stops_a_prune_until_it_is_forgotten(shared: Path) -> None:
    shutil.move(shared / "b", shared / "elsewhere")
    before = files_in(shared / "shared")
    done = call("prune", shared / "a")
    assert done.returncode == 3
    assert f"the run {shared / 'b'}, whose folder is gone" in done.stderr
    assert f"--forget {shared / 'b'}" in done.stderr
    assert files_in(shared / "shared") == before
    shutil.move(shared / "elsewhere", shared / "b")  # the disk is mounted again
    with pytest.raises(ConfigError, match="still stands there"):
        prune(shared / "a", forget=[shared / "b"])
    shutil.rmtree(shared / "b")
    done = call("prune", shared / "a", "--forget", shared / "b")
    assert done.returncode == 0, done.stderr
    assert {shared / "shared" / n for n in files_in(shared / "shared") if not n.startswith("runs/")} == {p for p in referred(shared / "a") if p.is_relative_to(shared / "shared")}
    with pytest.raises(ConfigError, match="knows no run"):
        prune(shared / "a", forget=[shared / "b"])


@pytest.mark.parametrize("what", ["damaged", "missing", "register"])
def test_a_ledger_that_cannot_be_read_stops_a_prune(shared: Path, what: str) -> None:
    file = shared / "b" / "ledger.parquet"
    if what == "damaged":
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 4
        file.write_bytes(content)
    elif what == "missing":
        file.unlink()
    else:
        next(f for f in (shared / "shared" / "runs").iterdir() if str(shared / "b") in f.read_text()).write_text('{"run')
    before = files_in(shared)
    with pytest.raises(DataError, match=f"{'which uses the store|known which run' if what == 'register' else str(shared / 'b')}"):
        prune(shared / "a")
    assert files_in(shared) == before


@pytest.mark.parametrize("name", ["a", "b", "shared"])
def test_a_prune_waits_for_nobody_who_works(shared: Path, name: str) -> None:
    before = files_in(shared)
    with held(shared / name), pytest.raises(RunHeldError, match="is held by"):
        prune(shared / "a")
    assert files_in(shared) == before


@pytest.mark.parametrize("folder", ["a", "b", "new"])
def test_a_run_that_starts_while_a_prune_works_is_refused(shared: Path, folder: str) -> None:
    file = write_recipe(shared / "recipe.yaml", recipe(shared, 40))
    words = ("run", file, "--run", shared / folder, "--store", shared / "shared", "--workers", 1, "-q")
    with sharing.alone(shared / "a", shared / "shared"):
        done = call(*words)
        assert done.returncode == 75, done.stderr
        assert ("is being pruned" if folder == "new" else "is held by") in done.stderr
    assert call(*words).returncode == 0
    assert prune(shared / "a").runs == sorted({shared / "a", shared / "b", shared / folder})


# -- death ------------------------------------------------------------------------------------------------------------


def cut(at: int, folder: Path, steps: Path) -> int:
    """Prune with the power cut at a step on the disk; 0: not at all, and the number of steps is written."""
    words = [sys.executable, str(TESTS / "crash.py"), str(at), str(steps), "prune", str(folder)]
    return subprocess.run(words, capture_output=True, check=False, timeout=60).returncode


def check_every_cut(pool: Path, choose: Any) -> None:
    for budget in ("5%", "10%"):
        run(recipe(pool, 20, budget), pool / "calm")
    run(recipe(pool, 30, "10%"), pool / "calm")
    expected = {k: v for k, v in lasting(pool / "calm").items() if pool / "calm" / k in referred(pool / "calm") or k.startswith("mixture/")}
    shutil.copytree(pool / "calm", pool / "whole", symlinks=True)
    assert cut(0, pool / "whole", pool / "steps") == 0
    steps = int((pool / "steps").read_text())
    assert steps > 20
    for step in choose(steps):
        rough = pool / "rough"
        shutil.copytree(pool / "calm", rough, symlinks=True)
        assert cut(step, rough, pool / "steps") == -signal.SIGKILL
        for name in ("mixtures", ".docs"):
            for half in (rough / name).iterdir():  # an old publication may be gone, but not in part: a later run would take it for whole
                assert files_in(half) == files_in(pool / "calm" / name / half.name), step
        report = verify(rough, workers=1)
        assert report.holds, (step, [fault.what for fault in report.faults])
        prune(rough)
        assert lasting(rough) == expected, step
        assert [name for name in leftovers(rough) if not name.startswith(".lease/")] == []  # those go with the next lease
        shutil.rmtree(rough)


def test_a_prune_that_is_killed_leaves_a_run_that_holds(pool: Path) -> None:
    check_every_cut(pool, lambda steps: [8, 12, *random.Random(4).sample(range(1, steps + 1), 4)])


@pytest.mark.slow
def test_a_prune_that_is_killed_at_every_step_leaves_a_run_that_holds(pool: Path) -> None:
    check_every_cut(pool, lambda steps: range(1, steps + 1))
