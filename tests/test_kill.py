"""Whatever dies, wherever: the same command again gives the bytes of a run that was never disturbed."""

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
    check_final_names,
    command,
    docs_without_place,
    end_group,
    funnel,
    lasting,
    leftovers,
    published,
    recipe_for,
    small_rows,
    write_recipe,
    write_rows,
)

TESTS = Path(__file__).parent
IN_A_WORKER = ["fit", "apply", "judge"]
IN_THE_PARENT = ["merge", "close", "finish"]


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A folder with a pool in eight files, so that two workers have something to share."""
    rows = small_rows()[:320]
    for n in range(8):
        write_rows(tmp_path / "pool" / f"{n}.parquet", rows[n::8])
    shutil.copy(TESTS / "trap.py", tmp_path / "trap.py")
    return tmp_path


def trapped(bench: Path, verb: str, whom: str) -> Path:
    """A recipe with the trap between the stages that every recipe has."""
    trap = {"trap.py:Trap": {"verb": verb, "whom": whom, "as": "trap"}}
    return write_recipe(bench / "recipe.yaml", recipe_for(bench, stages=[*STAGES[:2], trap, *STAGES[2:]]))


def undisturbed(bench: Path, recipe: Path) -> dict[str, str]:
    """What the recipe leaves when the trap has already sprung."""
    (bench / "sprung").touch()
    done = call("run", recipe, "--run", bench / "calm", "--workers", 2, "-q")
    assert done.returncode == 0, done.stderr
    (bench / "sprung").unlink()
    return lasting(bench / "calm")


@pytest.mark.parametrize(
    ("verb", "whom"),
    [("fit", "group"), ("apply", "parent"), ("judge", "group"), ("merge", "group"), ("finish", "group")],
)
def test_a_killed_run_is_completed_by_the_same_command(bench: Path, verb: str, whom: str) -> None:
    recipe = trapped(bench, verb, whom)
    expected = undisturbed(bench, recipe)
    words = ("run", recipe, "--run", bench / "rough", "--workers", 2, "-q")
    assert call(*words).returncode == -signal.SIGKILL
    assert (bench / "sprung").exists()
    assert not (bench / "rough" / "mixture").exists()
    assert not (bench / "rough" / "docs").exists()
    check_final_names(bench / "rough")
    again = call(*words)
    assert again.returncode == 0, again.stderr
    assert lasting(bench / "rough") == expected
    assert leftovers(bench / "rough") == []


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["group", "parent"])
@pytest.mark.parametrize("verb", IN_A_WORKER + IN_THE_PARENT)
def test_a_kill_in_every_verb_is_made_good(bench: Path, verb: str, whom: str) -> None:
    if verb in IN_THE_PARENT:
        whom = "group"
    test_a_killed_run_is_completed_by_the_same_command(bench, verb, whom)


@pytest.mark.parametrize("verb", ["apply", pytest.param("fit", marks=pytest.mark.slow), pytest.param("judge", marks=pytest.mark.slow)])
def test_a_worker_that_dies_once_is_replaced_and_does_not_show(bench: Path, verb: str) -> None:
    recipe = trapped(bench, verb, "worker")
    expected = undisturbed(bench, recipe)
    done = call("run", recipe, "--run", bench / "rough", "--workers", 2, "-q")
    assert done.returncode == 0, done.stderr
    assert (bench / "sprung").exists()
    assert lasting(bench / "rough") == expected


def test_a_part_that_kills_its_worker_twice_is_named(bench: Path) -> None:
    recipe = trapped(bench, "apply", "always")
    done = call("run", recipe, "--run", bench / "rough", "--workers", 2)
    assert done.returncode == 1
    assert "killed its worker twice (signal 9)" in done.stderr
    assert str(bench / "pool") in done.stderr
    assert "Traceback" not in done.stderr
    assert not (bench / "rough" / "mixture").exists()
    check_final_names(bench / "rough")


def test_a_worker_that_hangs_once_is_ended_and_does_not_show(bench: Path) -> None:
    recipe = trapped(bench, "apply", "hang")
    expected = undisturbed(bench, recipe)
    done = call("run", recipe, "--run", bench / "rough", "--workers", 2, "-q", "--task-timeout", 8)
    assert done.returncode == 0, done.stderr
    assert (bench / "sprung").exists()
    assert lasting(bench / "rough") == expected


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_part_that_hangs_two_workers_is_named(bench: Path, workers: int) -> None:
    recipe = trapped(bench, "apply", "always hang")
    done = call("run", recipe, "--run", bench / "rough", "--workers", workers, "--task-timeout", 5)
    assert done.returncode == 1, done.stderr
    assert "the limit of --task-timeout" in done.stderr
    assert str(bench / "pool") in done.stderr
    assert "Traceback" not in done.stderr
    assert not (bench / "rough" / "mixture").exists()
    check_final_names(bench / "rough")


@pytest.mark.parametrize("verb", ["apply", "finish"])
def test_ctrl_c_ends_the_run_with_130_and_the_same_command_completes_it(bench: Path, verb: str) -> None:
    recipe = trapped(bench, verb, "interrupt")
    expected = undisturbed(bench, recipe)
    words = ("run", recipe, "--run", bench / "rough", "--workers", 2, "-q")
    stopped = call(*words)
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stderr.strip() == "interrupted; run the same command again to continue"
    check_final_names(bench / "rough")
    again = call(*words)
    assert again.returncode == 0, again.stderr
    assert lasting(bench / "rough") == expected
    assert leftovers(bench / "rough") == []


def test_no_library_has_the_last_word_after_ctrl_c(bench: Path) -> None:
    """One whose import was interrupted says at length what it lost, when Python is taken down."""
    recipe = trapped(bench, "finish", "interrupt")
    (bench / "late").mkdir()
    late = "import atexit, sys\nif 'curate.worker' not in sys.orig_argv:\n    atexit.register(lambda: print('leaked', file=sys.stderr))\n"
    (bench / "late" / "sitecustomize.py").write_text(late)
    words = ("run", recipe, "--run", bench / "rough", "--workers", 2, "-q")
    stopped = call(*words, PYTHONPATH=bench / "late")
    assert stopped.returncode == 130
    assert stopped.stderr.strip() == "interrupted; run the same command again to continue"
    assert "leaked" in call(*words, PYTHONPATH=bench / "late").stderr


def test_no_library_has_the_last_word_after_a_good_end(bench: Path) -> None:
    """DuckDB's binding says at length what torch still holds of it, when Python is taken down."""
    (bench / "late").mkdir()
    late = "import builtins, os\nclass Late:\n    def __del__(self, write=os.write):\n        write(2, b'torn down')\nbuiltins.late = Late()\n"
    (bench / "late" / "sitecustomize.py").write_text(late)
    assert "torn down" in subprocess.run([sys.executable, "-c", ""], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(bench / "late")}, check=True).stderr
    done = call("list", "stages", PYTHONPATH=bench / "late")
    assert (done.returncode, done.stderr) == (0, "")
    assert "dedup_exact" in done.stdout


@pytest.mark.parametrize("verb", ["fit", "merge", "close", "apply", "judge", "finish"])
def test_what_a_stage_raises_names_the_stage_and_the_place(bench: Path, verb: str) -> None:
    recipe = trapped(bench, verb, "nobody, it raises")
    done = call("run", recipe, "--run", bench / "rough", "--workers", 1, "-q")
    assert done.returncode == 1
    assert "stage 'trap' failed" in done.stderr
    assert "ZeroDivisionError: the stage's own fault" in done.stderr
    assert "Traceback" not in done.stderr
    if verb in IN_A_WORKER:
        assert f"{bench}/pool/" in done.stderr
    else:
        assert f"in {verb}" in done.stderr


def test_a_second_run_on_the_same_folder_is_refused_with_75(bench: Path) -> None:
    recipe = write_recipe(bench / "recipe.yaml", recipe_for(bench, stages=[{f"{TESTS / 'gate.py'}:Gate": {}}], target=False))
    for name in ("reached", "open"):
        os.mkfifo(bench / name)
    words = ("run", recipe, "--run", bench / "rough", "--workers", 1, "-q")
    first = subprocess.Popen(command(*words), start_new_session=True)
    try:
        (bench / "reached").read_text()  # returns when the first run stands at the gate
        second = call(*words)
        assert second.returncode == 75
        assert f"held by process {first.pid}" in second.stderr
        (bench / "open").write_text("go")
        assert first.wait(timeout=60) == 0
    finally:
        end_group(first)
    third = call(*words)
    assert third.returncode == 0, third.stderr


class Cuts:
    """A run whose power is cut at a step on the disk, and what it should have left."""

    def __init__(self, bench: Path) -> None:
        self.bench = bench
        stages: list[dict[str, Any]] = [
            {"length": {"min_bytes": 20}},
            {"dedup_exact": {"normalize": ["space"]}},
            {"dsir": {"state": "frozen"}},
            {"select": {"by": "dsir", "how": "resample", "budget": "20%"}},
        ]
        self.recipe = write_recipe(bench / "recipe.yaml", recipe_for(bench, paths=["pool/[0-2].parquet"], stages=stages))
        assert self.run(0, "calm").returncode == 0
        self.steps = int((bench / "steps").read_text())
        self.expected = lasting(bench / "calm")

    def run(self, at: int, folder: str) -> subprocess.CompletedProcess[str]:
        words = ["run", str(self.recipe), "--run", str(self.bench / folder), "--workers", "1", "-q"]
        return subprocess.run(
            [sys.executable, str(TESTS / "crash.py"), str(at), str(self.bench / "steps"), *words],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def cut_at(self, step: int) -> None:
        folder = f"rough-{step}"
        assert self.run(step, folder).returncode == -signal.SIGKILL
        check_final_names(self.bench / folder)
        again = self.run(0, folder)
        assert again.returncode == 0, again.stderr
        assert lasting(self.bench / folder) == self.expected, f"cut at step {step} of {self.steps}"
        assert leftovers(self.bench / folder) == []
        shutil.rmtree(self.bench / folder)


def test_a_cut_at_any_step_on_the_disk_is_made_good(bench: Path) -> None:
    cuts = Cuts(bench)
    assert cuts.steps > 50
    for step in random.Random(5).sample(range(1, cuts.steps), 3):
        cuts.cut_at(step)


@pytest.mark.slow
def test_a_cut_at_every_step_on_the_disk_is_made_good(bench: Path) -> None:
    cuts = Cuts(bench)
    for step in range(1, cuts.steps + 1):
        cuts.cut_at(step)


def test_what_an_abandoned_recipe_left_half_made_is_swept_by_the_next(bench: Path) -> None:
    cuts = Cuts(bench)
    shutil.copytree(bench / "calm", bench / "rough", symlinks=True)
    for place in (".lease/00000000.making/mixture-0/data", ".lease/00000000.making/docs-0", ".lease/00000000.0.gone-making", "store/tmp/0"):
        (bench / "rough" / place).mkdir(parents=True)
        (bench / "rough" / place / "half").write_text("half")
    (bench / "rough" / ".lease" / "00000000.making" / "catalog.duckdb").write_text("half")
    (bench / "rough" / ".lease" / "00000000.0.making").write_text("half")
    assert cuts.run(0, "rough").returncode == 0
    found = leftovers(bench / "rough")
    assert found == ["store/tmp/0/half"]  # that of another run folder, which may share the store and be at work


@pytest.mark.slow
def test_many_kills_at_random_moments_are_made_good(tmp_path: Path) -> None:
    rows = small_rows()
    for n in range(40):
        write_rows(tmp_path / "pool" / f"{n}.parquet", [row | {"id": f"{row['id']}-{n}", "text": f"{row['text']} {n % 30}"} for row in rows])
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(tmp_path))
    assert call("run", recipe, "--run", tmp_path / "calm", "--workers", 2, "-q").returncode == 0
    expected = lasting(tmp_path / "calm")
    draw = random.Random(11)
    for attempt in range(40):
        folder = tmp_path / f"rough-{attempt // 4}"
        words = command("run", recipe, "--run", folder, "--workers", 2, "-q")
        victim = draw.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
        with subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
            try:
                said = process.communicate(timeout=draw.uniform(0.3, 2.5))[1]
            except subprocess.TimeoutExpired:
                end_group(process, victim)
                said = process.communicate(timeout=60)[1]
        # -SIGABRT: the interruption came while DuckDB's own import was in C++, which ends the process
        assert process.returncode in (-victim, -signal.SIGABRT, 130, 0), said
        if folder.exists():
            check_final_names(folder)
        if attempt % 4 == 3:
            done = call("run", recipe, "--run", folder, "--workers", 2, "-q")
            assert done.returncode == 0, done.stderr
            assert lasting(folder) == expected
            assert leftovers(folder) == []


def test_the_store_is_found_again_by_a_run_folder_that_was_lost(bench: Path) -> None:
    recipe = write_recipe(bench / "recipe.yaml", recipe_for(bench))
    words = ("run", recipe, "--run", bench / "rough", "--store", bench / "store", "--workers", 1, "-q")
    assert call(*words).returncode == 0
    expected, rows = published(bench / "rough"), docs_without_place(bench / "rough")
    kept = funnel(bench / "rough")
    shutil.rmtree(bench / "rough")
    assert call(*words).returncode == 0
    assert (published(bench / "rough"), docs_without_place(bench / "rough"), funnel(bench / "rough")) == (expected, rows, kept)
    events = [json.loads(line) for line in (bench / "rough" / "events.jsonl").read_text().splitlines()]
    assert events[-1]["computed_parts"] == 0
