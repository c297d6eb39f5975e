"""Takedowns from a run that an array of members made (--join): the same as from one that a process made alone."""

from __future__ import annotations

import os
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
    chosen_texts,
    command,
    counts,
    docs,
    end_group,
    leftovers,
    published,
    published_rows,
    recipe_for,
    small_rows,
    write_recipe,
    write_rows,
)

from curate import takedown

TESTS = Path(__file__).parent
#: maths-0020's text is copies-0003's too.
NAMED = ["copies-0003", "maths-0061", "logs-0003"]
GONE = {*NAMED, "maths-0020"}
BEST: list[dict[str, Any]] = [*STAGES[:3], {"select": {"by": "dsir", "budget": "25%"}}]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """The sample's pool in six files."""
    for n in range(6):
        write_rows(tmp_path / "pool" / f"{n}.parquet", small_rows()[n::6])
    (tmp_path / "ids.txt").write_text("\n".join(NAMED) + "\n")
    return tmp_path


def member(pool: Path, host: str, *more: object) -> subprocess.Popen[str]:
    environment = os.environ | {"CURATE_HOST": host, "CURATE_LEASE_SECONDS": "2"}
    words = command("run", pool / "recipe.yaml", "--run", pool / "run", "--workers", 1, "--join", "-q", *more)
    return subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, cwd=pool)


def ended(*processes: subprocess.Popen[str]) -> list[tuple[int, str]]:
    try:
        said = [process.communicate(timeout=100)[1] for process in processes]
    finally:
        for process in processes:
            end_group(process)
    return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def array(pool: Path, *hosts: str) -> None:
    """Let members of these hosts carry the recipe out together."""
    found = ended(*[member(pool, host) for host in hosts])
    assert [code for code, _ in found] == [0] * len(hosts), found


def take_down(pool: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return call("takedown", pool / "run", "--ids", pool / "ids.txt", "--workers", 1, "-q", *words, CURATE_LEASE_SECONDS=2)


def clean(pool: Path) -> None:
    """Nothing of what was taken down is left, and nothing half-made; the proof holds."""
    listed = takedown.read(pool / "run")
    assert listed is not None
    assert takedown.remains(pool / "run", listed, ("id", "source")) == {}
    assert not GONE & {row["id"] for row in published_rows(pool / "run")}
    gone = {row["text"] for row in small_rows() if row["id"] in NAMED}
    assert not gone & set(chosen_texts(pool / "run"))
    assert leftovers(pool / "run") == []
    assert [path.suffix for path in (pool / "run" / ".lease").iterdir()] == [".json"]
    done = call("verify", pool / "run")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_takedown_from_a_shared_run_is_that_from_one_made_alone_and_members_keep_to_it(pool: Path) -> None:
    write_recipe(pool / "recipe.yaml", recipe_for(pool, stages=BEST))
    array(pool, "a", "b", "c")
    assert GONE & {row["id"] for row in published_rows(pool / "run")}
    shutil.copytree(pool / "run", pool / "shared", symlinks=True)
    done = take_down(pool)
    assert done.returncode == 0, done.stderr
    assert "4 documents of the pool are taken down" in done.stdout
    clean(pool)
    after = published(pool / "run")
    shutil.rmtree(pool / "run")
    assert call("run", pool / "recipe.yaml", "--run", pool / "run", "--workers", 1, "-q").returncode == 0
    assert take_down(pool).returncode == 0
    assert published(pool / "run") == after

    shutil.rmtree(pool / "run")
    (pool / "shared").rename(pool / "run")
    assert take_down(pool).returncode == 0
    [text] = {row["text"] for row in small_rows() if row["id"] == "maths-0061"}
    write_rows(pool / "pool" / "new.parquet", [
        {"id": "new-0001", "source": "maths", "text": text}, {"id": "new-0002", "source": "maths", "text": "A new one of its own, long enough for the first filter."},
    ])  # fmt: skip
    array(pool, "a", "b", "c")
    clean(pool)
    dropped = {row["curate_identity"] for row in docs(pool / "run").to_pylist() if row["curate_drop_stage"] == "takedown"}
    assert dropped == {*GONE, "new-0001"}
    assert counts(pool / "run")["takedown", "equals a text taken down"] == 2


def test_members_who_work_keep_a_takedown_out_and_dead_ones_do_not(pool: Path) -> None:
    write_recipe(pool / "recipe.yaml", recipe_for(pool, stages=BEST))
    array(pool, "a", "b")
    gate = {f"{TESTS / 'gate.py'}:Gate": {"as": "gate"}}
    write_recipe(pool / "recipe.yaml", recipe_for(pool, stages=[gate, *BEST]))
    for name in ("reached", "open"):
        os.mkfifo(pool / name)
    lead = member(pool, "a")
    (pool / "reached").read_text()  # it stands in its first task, and holds the run
    try:
        held = take_down(pool)
        assert held.returncode == 75
        assert f"process {lead.pid} on a" in held.stderr
        assert takedown.read(pool / "run") is None  # nothing was recorded
    finally:
        end_group(lead, signal.SIGKILL)
        lead.communicate()
    done = take_down(pool)  # of the results that stand: the dead members' recipe is not asked
    assert done.returncode == 0, done.stderr
    clean(pool)


@pytest.mark.parametrize("share", [0.8, pytest.param(0.35, marks=pytest.mark.slow)])
def test_a_takedown_that_died_is_completed_by_the_members_of_the_next_run(pool: Path, share: float) -> None:
    write_recipe(pool / "recipe.yaml", recipe_for(pool, stages=[STAGES[0], {"select": {"how": "random", "budget": "60%"}}]))
    array(pool, "a", "b")
    words = ["takedown", str(pool / "run"), "--ids", str(pool / "ids.txt"), "--workers", "1", "-q"]

    def cut(at: int) -> int:
        program = [sys.executable, str(TESTS / "crash.py"), str(at), str(pool / "count"), *words]
        environment = os.environ | {"CURATE_HOST": "a", "CURATE_LEASE_SECONDS": "2"}
        return subprocess.run(program, capture_output=True, check=False, timeout=60, env=environment).returncode

    shutil.copytree(pool / "run", pool / "first", symlinks=True)
    assert cut(0) == 0
    expected, steps = published(pool / "run"), int((pool / "count").read_text())
    shutil.rmtree(pool / "run")
    (pool / "first").rename(pool / "run")
    assert cut(int(steps * share)) == -signal.SIGKILL
    assert takedown.read(pool / "run") is not None  # the list comes first
    array(pool, "a", "b")
    clean(pool)
    assert published(pool / "run") == expected
    assert len(list((pool / "run" / "mixtures").iterdir())) == 1
