"""Who may work in a run folder: one at a time, whatever dies, is suspended, or is of another machine."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from run_folders import (
    call,
    command,
    end_group,
    lasting,
    leftovers,
    published,
    recipe_for,
    small_rows,
    write_recipe,
    write_rows,
)

from curate import lease
from curate.errors import ConfigError, RunHeldError
from curate.lease import (
    Lease,
    Watch,
    acquire,
    create,
    ending,
    held,
    holder_of,
    newest,
    read_holder,
    this_process,
)
from curate.store import point, write_bytes

TESTS = Path(__file__).parent
HOLD = "import sys\nfrom pathlib import Path\nfrom curate.lease import held\nwith held(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"


class Clock:
    """A monotonic clock that a test moves; sleeping moves it too."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def time(self) -> float:
        return 1.8e9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for name in ("monotonic", "sleep", "time"):
        monkeypatch.setattr(lease.time, name, getattr(made, name))
    return made


def taken(folder: Path, **how: Any) -> Lease:
    found = acquire(folder, **how)
    assert isinstance(found, Lease)
    return found


@contextmanager
def holding(folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a folder until its standard input closes."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                             env=os.environ | environment)  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_a_lease_refuses_a_second_holder_and_names_the_first(tmp_path: Path) -> None:
    with holding(tmp_path / "run") as child:
        with pytest.raises(RunHeldError, match=rf"held by process {child.pid} on \S+ since \d{{4}}-.* UTC; wait for it with --wait SECONDS, or name another"):
            acquire(tmp_path / "run")
        holder = holder_of(tmp_path / "run")
        assert holder is not None
        assert holder.process == child.pid
        child.communicate("go on")
        assert holder_of(tmp_path / "run") is None
    second = taken(tmp_path / "run")
    assert second.taken_from is None
    with pytest.raises(RunHeldError, match=f"process {os.getpid()}"):
        acquire(tmp_path / "run")
    second.close()
    assert [p.name for p in (tmp_path / "run" / ".lease").iterdir()] == ["00000002.json"]


def test_a_dead_holder_of_this_machine_is_taken_over_at_once_and_named(tmp_path: Path) -> None:
    with holding(tmp_path / "run") as child:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has buried it
        assert holder_of(tmp_path / "run") is None
        second = taken(tmp_path / "run")
    assert second.taken_from is not None
    assert second.taken_from.process == child.pid
    second.close()


def test_what_one_left_who_died_while_it_made_the_lease_goes_with_the_next(tmp_path: Path) -> None:
    first = taken(tmp_path)
    first.close()
    number = int(first.path.stem) + 1
    left = tmp_path / lease.FOLDER / f"{number:08d}.0123456789abcdef.making"
    left.write_text("{}")
    second = taken(tmp_path)
    assert int(second.path.stem) == number
    assert not left.exists()
    assert second.staging.is_dir()
    second.close()


def test_a_number_that_another_process_has_by_now_is_not_the_holder(tmp_path: Path) -> None:
    with held(tmp_path / "run"):
        path = newest(tmp_path / "run")
        assert path is not None
    before = msgspec.structs.replace(this_process(), started=1)
    path.write_bytes(msgspec.json.encode(before))
    second = taken(tmp_path / "run")
    assert second.taken_from == before
    second.close()


def test_a_holder_on_another_machine_is_respected_while_its_counter_moves(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_HOST", "there")
    first = taken(tmp_path / "run")
    beat = tmp_path / "run" / ".lease" / "00000001.beat"
    monkeypatch.setenv("CURATE_HOST", "here")
    slept = clock.sleep

    def sleep(seconds: float) -> None:
        slept(seconds)
        if clock.now > 150:  # late, but within the lease of 60 s
            beat.write_text(str(clock.now))

    monkeypatch.setattr(lease.time, "sleep", sleep)
    with pytest.raises(RunHeldError, match=f"held by process {os.getpid()} on there since 2027-"):
        acquire(tmp_path / "run")
    assert 150 < clock.now < 152  # a sign of life ends the watching
    with pytest.raises(RunHeldError, match=r"waited 500 s"):
        acquire(tmp_path / "run", wait=500)
    assert clock.now > 650
    first.close()


def test_a_holder_on_another_machine_is_dead_when_its_counter_has_stood_still_for_a_lease(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_HOST", "there")
    monkeypatch.setenv("CURATE_LEASE_SECONDS", "300")
    first = taken(tmp_path / "run")
    monkeypatch.setenv("CURATE_HOST", "here")
    monkeypatch.delenv("CURATE_LEASE_SECONDS")  # the holder's own promise counts, not the observer's
    second = taken(tmp_path / "run")
    assert 400 < clock.now < 410
    assert second.taken_from == first.holder
    assert not second.lost()
    assert first.lost()
    with pytest.raises(RunHeldError, match=r"no sign of life for its lease of 300 s, and the run folder .*/run was taken over by process \d+ on here since"):
        first.check()
    first.close()
    assert holder_of(tmp_path / "run") == second.holder
    second.close()


def test_one_who_lost_the_lease_can_publish_nothing(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("CURATE_HOST", "there")
    first = taken(run)
    (first.staging / "docs").mkdir()
    monkeypatch.setenv("CURATE_HOST", "here")
    second = taken(run)

    def wakes() -> None:
        for step in (lambda: write_bytes(run / "parts", b"late", first.staging), lambda: point(run / "docs", "x", first.staging),
                     lambda: (first.staging / "docs").rename(run / "docs")):  # fmt: skip
            with pytest.raises(FileNotFoundError):
                step()
        raise ZeroDivisionError("whatever follows from it")

    with pytest.raises(RunHeldError, match="taken over by process"), ending(first):
        wakes()
    assert [p.name for p in run.iterdir()] == [".lease"]
    write_bytes(run / "parts", b"in time", second.staging)
    second.close()
    assert sorted(p.name for p in run.rglob("*")) == [".lease", "00000002.json", "parts"]


def test_one_who_wakes_up_before_it_has_begun_withdraws(tmp_path: Path) -> None:
    folder = tmp_path / ".lease"
    folder.mkdir()
    late = Lease(tmp_path, folder / "00000001.json", this_process(), [])
    assert create(folder / "00000001.json", msgspec.json.encode(late.holder))
    assert create(folder / "00000002.json", msgspec.json.encode(this_process()))
    assert not late.begin()
    assert [p.name for p in folder.iterdir()] == ["00000002.json"]


def test_a_lease_that_cannot_be_read_is_watched_like_one_of_another_machine(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / ".lease").mkdir()
    (tmp_path / ".lease" / "00000004.json").write_bytes(b"\x00garbage")
    found = taken(tmp_path)
    assert 160 < clock.now < 170
    assert found.taken_from is None
    found.close()
    assert [p.name for p in (tmp_path / ".lease").iterdir()] == ["00000005.json"]


def test_a_watch_sees_a_counter_that_goes_back_or_vanishes_as_alive(tmp_path: Path, clock: Clock) -> None:
    other = msgspec.structs.replace(this_process(), machine="another", lease_seconds=10)
    beat = tmp_path / "beat"
    watch = Watch(other, beat)
    for content in ("7", "3", None, "3"):
        clock.now += 9
        if content is None:
            beat.unlink()
        else:
            beat.write_text(content)
        assert not watch.dead()
    clock.now += 10
    assert not watch.dead()
    clock.now += 0.1
    assert watch.dead()


def test_of_many_who_create_a_file_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert create(tmp_path / "a", b"first")
    assert not create(tmp_path / "a", b"second")

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refused)
    assert create(tmp_path / "b", b"first")
    assert not create(tmp_path / "b", b"second")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"first", "b": b"first"}


@pytest.mark.parametrize("given", ["soon", "0", "-1", "inf"])
def test_a_lease_length_that_is_none_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_LEASE_SECONDS", given)
    with pytest.raises(ConfigError, match=f"expected CURATE_LEASE_SECONDS to be a number of seconds, got '{given}'"):
        this_process()


CONTEND = """
import os, signal, sys
from pathlib import Path
from curate.lease import held
folder, rounds, dies = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
sys.stdin.readline()
for n in range(rounds):
    with held(folder / "run", wait=100):
        (folder / "run" / "work").touch()
        inside = folder / "inside"
        if inside.exists():
            other = int(inside.read_text())
            try:
                os.kill(other, 0)
                if open(f"/proc/{other}/stat").read().rpartition(")")[2].split()[0] != "Z":
                    sys.exit(f"{other} is inside, and so is {os.getpid()}")
            except (ProcessLookupError, FileNotFoundError):
                pass
        inside.write_text(str(os.getpid()))
        if dies and n == rounds - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        count = folder / "count"
        count.write_text(str(int(count.read_text()) + 1))
        inside.unlink()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the states of processes from /proc")
def test_of_many_processes_one_at_a_time_is_inside_even_where_holders_are_killed(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    rounds, deaths = 12, [0, 1, 0, 1, 0, 0]
    children = [
        subprocess.Popen([sys.executable, "-c", CONTEND, str(tmp_path), str(rounds), str(dies)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for dies in deaths
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate(timeout=100)[1] for child in children]
    assert [child.returncode for child in children] == [-signal.SIGKILL if dies else 0 for dies in deaths], said
    assert int((tmp_path / "count").read_text()) == rounds * len(deaths) - sum(deaths)


def test_a_block_that_fails_with_nothing_written_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(tmp_path / "runs" / "new"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_fails_takes_back_neither_what_it_wrote_nor_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "wrote").mkdir()
    (tmp_path / "wrote" / "file").touch()
    with pytest.raises(ZeroDivisionError), held(tmp_path / "wrote"):
        raise ZeroDivisionError
    assert (tmp_path / "wrote" / "file").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(ZeroDivisionError), held(tmp_path / "there"):
        raise ZeroDivisionError
    assert (tmp_path / "there").is_dir()
    (tmp_path / "used" / "other").mkdir(parents=True)
    with pytest.raises(ZeroDivisionError), held(tmp_path / "used" / "new"):
        raise ZeroDivisionError
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["other"]


def test_how_a_block_ended_is_left_in_the_lease(tmp_path: Path) -> None:
    for error, outcome, said, code in (
        (ConfigError("not so"), "failed", "not so", 2), (ZeroDivisionError("zero"), "failed", "ZeroDivisionError: zero", 1),
        (KeyboardInterrupt(), "interrupted", "", 130), (None, "finished", "", 0),
    ):  # fmt: skip
        with pytest.raises(type(error)) if error else held(tmp_path / "other"), held(tmp_path):  # type: ignore[arg-type]
            if error:
                raise error
        path = newest(tmp_path)
        assert path is not None
        left = read_holder(path)
        assert left is not None
        assert (left.free, left.outcome, left.error, left.exit_code) == (True, outcome, said, code)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    write_rows(tmp_path / "pool" / "0.parquet", small_rows()[:60])
    return tmp_path


def gated(bench: Path, **more: Any) -> Path:
    """A recipe whose run stops at a gate."""
    stages = [{f"{TESTS / 'gate.py'}:Gate": {}}, {"select": {"how": "random", "budget": 20, **more}}]
    for name in ("reached", "open"):
        os.mkfifo(bench / name)
    return write_recipe(bench / "recipe.yaml", recipe_for(bench, stages=stages, target=False))


@contextmanager
def at_the_gate(bench: Path, *words: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A run that stands at the gate."""
    process = subprocess.Popen(command(*words), start_new_session=True, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        (bench / "reached").read_text()
        yield process
    finally:
        end_group(process)
        process.communicate()


def test_a_run_waits_for_another_and_then_has_nothing_left_to_compute(bench: Path) -> None:
    recipe = gated(bench)
    words = ("run", recipe, "--run", bench / "run", "--workers", 1)
    with at_the_gate(bench, *words) as first:
        refused = call(*words, "--wait", "0.1")
        assert refused.returncode == 75
        assert f"held by process {first.pid} on " in refused.stderr
        assert "(waited 0.1 s)" in refused.stderr
        second = subprocess.Popen(command(*words, "--wait", "90"), start_new_session=True, stderr=subprocess.PIPE, text=True)
        (bench / "open").write_text("go")
        assert first.wait(timeout=60) == 0
        said = second.communicate(timeout=60)[1]
        assert second.returncode == 0, said
    assert leftovers(bench / "run") == []


def test_taking_over_from_a_killed_run_is_said(bench: Path) -> None:
    recipe = gated(bench)
    words = ("run", recipe, "--run", bench / "run", "--workers", 1)
    with at_the_gate(bench, *words) as first:
        end_group(first)
        first.wait()
    again = call(*words)
    assert again.returncode == 0
    assert f"took over from process {first.pid} on " in again.stderr
    assert "which died" in again.stderr
    assert leftovers(bench / "run") == []


def test_a_run_that_was_suspended_for_longer_than_its_lease_publishes_nothing(bench: Path) -> None:
    recipe = gated(bench)
    words = ("run", recipe, "--run", bench / "run", "--workers", 1, "-q")
    with at_the_gate(bench, *words, CURATE_HOST="there", CURATE_LEASE_SECONDS="1") as first:
        os.kill(first.pid, signal.SIGSTOP)
        second = call(*words, "--set", "stages.select.budget=10")  # on this host; another publication than the first would make
        assert second.returncode == 0, second.stderr
        before, everything = published(bench / "run"), lasting(bench / "run")
        os.kill(first.pid, signal.SIGCONT)
        (bench / "open").write_text("go")
        said = first.communicate(timeout=60)[1]
        assert first.returncode == 75, said
        assert "no sign of life for its lease of 1 s" in said
        assert "Traceback" not in said
    assert published(bench / "run") == before
    assert len(list((bench / "run" / "mixtures").iterdir())) == 1
    assert {name: hash for name, hash in lasting(bench / "run").items() if not name.startswith("store/")} == {
        name: hash for name, hash in everything.items() if not name.startswith("store/")
    }
    assert leftovers(bench / "run") == []


STOPS = """
import os, signal
from curate import docs
from curate.cli import main
from curate.pipelines import emit
switch = {module}.point
def stops(*given):
    os.kill(os.getpid(), signal.SIGSTOP)
    switch(*given)
{module}.point = stops
main()
"""


@pytest.mark.parametrize("module", ["docs", "emit"])
def test_a_run_that_is_suspended_just_before_it_switches_a_link_switches_nothing(bench: Path, module: str) -> None:
    recipe = write_recipe(bench / "recipe.yaml", recipe_for(bench, stages=[{"select": {"how": "random", "budget": 20}}], target=False))
    words = ["run", str(recipe), "--run", str(bench / "run"), "--workers", "1", "-q"]
    first = subprocess.Popen([sys.executable, "-c", STOPS.format(module=module), *words], start_new_session=True, stderr=subprocess.PIPE, text=True,
                             env=os.environ | {"CURATE_HOST": "there", "CURATE_LEASE_SECONDS": "1"})  # fmt: skip
    try:
        os.waitid(os.P_PID, first.pid, os.WSTOPPED)
        second = call(*words, "--set", "stages.select.budget=10")
        assert second.returncode == 0, second.stderr
        before = published(bench / "run"), (bench / "run" / "docs").readlink()
        os.kill(first.pid, signal.SIGCONT)
        said = first.communicate(timeout=60)[1]
    finally:
        end_group(first)
    assert first.returncode == 75, said
    assert "nothing more was published by this one" in said
    assert (published(bench / "run"), (bench / "run" / "docs").readlink()) == before
    assert leftovers(bench / "run") == []


def test_of_two_runs_started_at_once_one_works_and_the_other_is_refused(bench: Path) -> None:
    recipe = write_recipe(bench / "recipe.yaml", recipe_for(bench, stages=[{"select": {"how": "random", "budget": 20}}], target=False))
    start = "import sys; sys.argv[0] = 'curate'; from curate import api, pipelines, runner; from curate.cli import main; sys.stdin.readline(); main()"
    for attempt in range(5):
        words = ["run", str(recipe), "--run", str(bench / f"run-{attempt}"), "--workers", "1", "-q"]
        both = [
            subprocess.Popen([sys.executable, "-c", start, *words], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
            for _ in range(2)
        ]
        for process in both:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60)[1] for process in both]
        codes = sorted(process.returncode for process in both)
        assert codes in ([0, 75], [0, 0]), said  # 0 and 0 where the second came when the first had finished
        assert lasting(bench / f"run-{attempt}")
        assert leftovers(bench / f"run-{attempt}") == []
