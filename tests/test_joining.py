"""Many members at one run: the bytes of a run that one did alone, whoever dies."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from run_folders import (
    STAGES,
    call,
    check_final_names,
    chosen_texts,
    command,
    end_group,
    lasting,
    leftovers,
    recipe_for,
    small_rows,
    write_recipe,
    write_rows,
)

TESTS = Path(__file__).parent
SHARE = re.compile(r"this member did (\d+) of the (\d+) parts of (\d+) passes")
PARTS = 12


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    rows = small_rows()[:240]
    for n in range(PARTS):
        write_rows(tmp_path / "pool" / f"{n:02d}.parquet", rows[n::PARTS])
    shutil.copy(TESTS / "trap.py", tmp_path / "trap.py")
    return tmp_path


class Members:
    """The processes of a job array, each on a host of its own unless said otherwise."""

    def __init__(self, bench: Path, recipe: Path) -> None:
        self.words = ("run", recipe, "--run", bench / "shared", "--workers", 1, "--join")
        self.started: list[subprocess.Popen[str]] = []

    def start(self, host: str, *more: object) -> subprocess.Popen[str]:
        environment = os.environ | {"CURATE_HOST": host, "CURATE_LEASE_SECONDS": "3"}
        process = subprocess.Popen(command(*self.words, *more), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
        self.started.append(process)
        return process

    def end(self, *processes: subprocess.Popen[str]) -> list[tuple[int, str]]:
        """Wait for members; their exit codes and what they said."""
        said = [process.communicate(timeout=100)[1] for process in processes]
        return [(process.returncode, text) for process, text in zip(processes, said, strict=True)]


@contextmanager
def members(bench: Path, recipe: Path) -> Iterator[Members]:
    found = Members(bench, recipe)
    try:
        yield found
    finally:
        for process in found.started:
            end_group(process)
            process.communicate()


def wait_until(there: Callable[[], bool]) -> None:
    """Wait for what another process will do; a test that waits in vain fails here."""
    until = time.monotonic() + 60
    while not there():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)


def alone(bench: Path, recipe: Path) -> dict[str, str]:
    """What the recipe leaves when one process carries it out, with no trap to spring and no gate to stop at."""
    (bench / "sprung").touch()
    done = call("run", recipe, "--run", bench / "alone", "--workers", 1, "-q")
    assert done.returncode == 0, done.stderr
    (bench / "sprung").unlink()
    return lasting(bench / "alone")


def finished(folder: Path) -> None:
    """What must hold of a folder that members have left."""
    assert leftovers(folder) == []
    assert [path.suffix for path in (folder / ".lease").iterdir()] == [".json"]
    scratch = folder / "store" / "tmp"
    assert not scratch.exists() or list(scratch.iterdir()) == []


def gated(bench: Path) -> Path:
    return write_recipe(bench / "recipe.yaml", recipe_for(bench, stages=[{f"{TESTS / 'gate.py'}:Gate": {"as": "gate"}}, *STAGES]))


def trapped(bench: Path, verb: str) -> Path:
    trap = {"trap.py:Trap": {"verb": verb, "whom": "group", "as": "trap"}}
    return write_recipe(bench / "recipe.yaml", recipe_for(bench, stages=[*STAGES[:2], trap, *STAGES[2:]]))


def test_members_share_the_parts_and_leave_the_bytes_of_one_alone(bench: Path) -> None:
    recipe = gated(bench)
    expected = alone(bench, recipe)
    for name in ("reached", "open"):
        os.mkfifo(bench / name)
    with members(bench, recipe) as array:
        lead = array.start("a")
        (bench / "reached").read_text()  # the leader stands in its first task
        others = [array.start("b"), array.start("c")]
        wait_until(lambda: len(list((bench / "shared" / ".lease").glob("*.claims/*/*.done"))) == PARTS - 1)
        assert lead.poll() is None
        (bench / "open").write_text("go")
        ended = array.end(lead, *others)
    assert [code for code, _ in ended] == [0, 0, 0], ended
    shares = [SHARE.search(said) for _, said in ended]
    assert all(shares), ended
    did = [int(share[1]) for share in shares if share]
    assert sum(did) == 3 * PARTS  # three passes, no part twice
    assert {share[2] for share in shares if share} == {str(3 * PARTS)}
    assert sum(did[1:]) >= PARTS - 1
    for _, said in ended[1:]:
        assert f"published by process {lead.pid} on a since" in said
    assert lasting(bench / "shared") == expected
    finished(bench / "shared")


@pytest.mark.parametrize(
    ("verb", "hosts"),
    [("finish", "aaa"), ("judge", "abc"), pytest.param("apply", "aaa", marks=pytest.mark.slow), pytest.param("fit", "aab", marks=pytest.mark.slow),
     pytest.param("merge", "abc", marks=pytest.mark.slow), pytest.param("close", "aab", marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_member_that_dies_leaves_its_tasks_and_its_lease_to_the_others(bench: Path, verb: str, hosts: str) -> None:
    """merge, close and finish kill the leader; the others whoever comes to the trap first."""
    recipe = trapped(bench, verb)
    expected = alone(bench, recipe)
    with members(bench, recipe) as array:
        ended = array.end(*[array.start(host) for host in hosts])
    codes = sorted(code for code, _ in ended)
    assert codes == [-signal.SIGKILL, 0, 0], ended
    assert (bench / "sprung").exists()
    assert lasting(bench / "shared") == expected
    finished(bench / "shared")
    if verb == "finish":
        assert any("took over from process" in said for _, said in ended), ended


@pytest.mark.slow
def test_a_takedown_reaches_what_members_made_and_members_that_come_later_obey_it(bench: Path) -> None:
    recipe = gated(bench)
    for name in ("reached", "open"):
        os.mkfifo(bench / name)
    (bench / "ids.txt").write_text(small_rows()[0]["id"])
    words = ("takedown", bench / "shared", "--ids", bench / "ids.txt", "--workers", 1, "-q")
    with members(bench, recipe) as array:
        lead = array.start("a")
        (bench / "reached").read_text()
        held = call(*words)
        assert held.returncode in (2, 75), held.stderr  # nothing has finished there, and a leader works
        (bench / "open").write_text("go")
        assert [code for code, _ in array.end(lead, array.start("b"))] == [0, 0]
    for name in ("reached", "open"):
        (bench / name).unlink(missing_ok=True)
    gone = set(sorted(chosen_texts(bench / "shared"))[:3])
    (bench / "ids.txt").write_text("\n".join(row["id"] for row in small_rows()[:240] if row["text"] in gone))
    done = call(*words)
    assert done.returncode == 0, done.stderr
    assert not gone & set(chosen_texts(bench / "shared"))
    write_rows(bench / "pool" / f"{PARTS:02d}.parquet", [{**row, "id": f"again-{row['id']}"} for row in small_rows() if row["text"] in gone] + small_rows()[240:250])
    with members(bench, recipe) as array:
        ended = array.end(array.start("a"), array.start("b"))
    assert [code for code, _ in ended] == [0, 0], ended
    assert not gone & set(chosen_texts(bench / "shared"))
    assert call("verify", bench / "shared").returncode == 0
    finished(bench / "shared")


def test_what_all_dead_members_left_is_swept_by_the_next_run(bench: Path) -> None:
    recipe = trapped(bench, "apply")
    expected = alone(bench, recipe)
    with members(bench, recipe) as array:
        [(code, _)] = array.end(array.start("a"))
    assert code == -signal.SIGKILL
    assert list((bench / "shared" / ".lease").glob("*.claims"))
    check_final_names(bench / "shared")
    with members(bench, recipe) as array:
        [(code, said)] = array.end(array.start("a"))
    assert code == 0, said
    assert "took over from process" in said
    assert lasting(bench / "shared") == expected
    finished(bench / "shared")


def test_a_member_with_another_plan_is_refused_with_what_differs(bench: Path) -> None:
    recipe = gated(bench)
    for name in ("reached", "open"):
        os.mkfifo(bench / name)
    with members(bench, recipe) as array:
        lead = array.start("a")
        (bench / "reached").read_text()
        [(code, said)] = array.end(array.start("b", "--set", "stages.select.budget=7"))
        assert code == 75
        assert re.search(r"that was to be joined is another one \(stage select: \w{8} there, \w{8} here\)", said)
        solo = call("run", recipe, "--run", bench / "shared", "-q")
        assert solo.returncode == 75
        (bench / "open").write_text("go")
        [(code, said)] = array.end(lead)
        assert code == 0, said
    finished(bench / "shared")


def test_a_run_that_is_not_shared_cannot_be_joined(bench: Path) -> None:
    recipe = gated(bench)
    for name in ("reached", "open"):
        os.mkfifo(bench / name)
    with members(bench, recipe) as array:
        lead = subprocess.Popen(command("run", recipe, "--run", bench / "shared", "--workers", 1, "-q"), start_new_session=True, text=True, stderr=subprocess.PIPE)
        array.started.append(lead)
        (bench / "reached").read_text()
        done = call(*array.words)
        assert done.returncode == 75
        assert f"held by process {lead.pid} on " in done.stderr


def test_what_the_leader_fails_with_is_what_all_fail_with(bench: Path) -> None:
    write_rows(bench / "pool" / "99.parquet", small_rows()[:1])  # an id that is there already: found when all parts have been read
    recipe = gated(bench)
    for name in ("reached", "open"):
        os.mkfifo(bench / name)
    with members(bench, recipe) as array:
        lead = array.start("a")
        (bench / "reached").read_text()
        other = array.start("b")
        wait_until(lambda: len(list((bench / "shared" / ".lease").glob("*.claims/*/*.done"))) == PARTS)
        (bench / "open").write_text("go")
        (first, said), (second, repeated) = array.end(lead, other)
    assert (first, second) == (3, 3)
    message = said.strip().splitlines()[-1].removeprefix("error: ")
    assert "stands 2 times" in message
    assert f"process {lead.pid} on a since" in repeated
    assert message in repeated
    finished(bench / "shared")


@pytest.mark.slow
def test_members_killed_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    rows = small_rows()
    for n in range(24):
        write_rows(tmp_path / "pool" / f"{n}.parquet", [row | {"id": f"{row['id']}-{n}", "text": f"{row['text']} {n % 20}"} for row in rows[:300]])
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(tmp_path))
    expected = alone(tmp_path, recipe)
    draw = random.Random(23)
    for _ in range(12):
        with members(tmp_path, recipe) as array:
            processes = [array.start(host) for host in draw.choice(["aaa", "aab", "abc"])]
            for victim in draw.sample(processes, draw.choice([1, 2])):
                time.sleep(draw.uniform(0.3, 1.5))
                end_group(victim, draw.choice([signal.SIGKILL, signal.SIGTERM]))
            ended = array.end(*processes)
        # -SIGTERM: before the command could handle it; -SIGINT: Python ends so when a library's import was interrupted
        left = [code for code, _ in ended if code not in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGABRT, 130)]
        assert left, ended
        assert set(left) == {0}, ended
        assert lasting(tmp_path / "shared") == expected
        finished(tmp_path / "shared")
        shutil.rmtree(tmp_path / "shared")
