"""A machine that fails under a run: what is said, with which exit code, and that the same command makes it good.

The table of all faults, with the tests that show them, is docs/reliability.md.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from faulty import on_a_faulty_machine, run_words
from run_folders import (
    STAGES,
    call,
    check_final_names,
    command,
    lasting,
    leftovers,
    recipe_for,
    small_rows,
    write_recipe,
    write_rows,
)
from soak import VICTIMS, Tally, three_stages_bench

TESTS = Path(__file__).parent
MACHINE = 74
AGAIN = "then run the same command again"


class Machine:
    """A pool in six files, a recipe over it, and what the undisturbed run leaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rows = small_rows()[:240]
        for n in range(6):
            write_rows(folder / "pool" / f"{n}.parquet", rows[n::6])
        self.recipe = write_recipe(folder / "recipe.yaml", recipe_for(folder))
        done = on_a_faulty_machine(run_words(self.recipe, folder / "calm"), prefix=folder / "calm", count=folder / "count")
        assert done.returncode == 0, done.stderr
        self.expected = lasting(folder / "calm")
        self.written_bytes = int.from_bytes((folder / "count").read_bytes(), "little")

    def completed(self, run: Path, recipe: Path | None = None) -> None:
        """The same command, on a machine that works, completes the run to the promised bytes."""
        done = subprocess.run(run_words(recipe or self.recipe, run), capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        if recipe is None:
            assert lasting(run) == self.expected
        assert leftovers(run) == []


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


def said_well(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit 74 and one message with all of `parts` and the remedy."""
    assert done.returncode == MACHINE, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for part in (*parts, AGAIN):
        assert part in done.stderr, done.stderr


# -- the disk -----------------------------------------------------------------------------------------


def fill(machine: Machine, run: Path, draw: random.Random, number: int) -> None:
    """Let writing fail after a random number of bytes, with one or two workers; a run that needs fewer succeeds."""
    after = draw.randrange(machine.written_bytes)
    words = run_words(machine.recipe, run, workers=draw.choice([1, 2]))
    done = on_a_faulty_machine(words, prefix=run, number=number, after=after, count=machine.folder / "count")
    if done.returncode != 0:
        said_well(done, str(run), os.strerror(number))
    check_final_names(run)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
def test_a_disk_that_fails_after_so_many_bytes_is_told_and_made_good(machine: Machine, tmp_path: Path, number: int) -> None:
    run = tmp_path / "rough"
    said_well(
        on_a_faulty_machine(run_words(machine.recipe, run), prefix=run, number=number, after=machine.written_bytes // 3, count=tmp_path / "count"),
        "could not write", str(run), os.strerror(number),
    )  # fmt: skip
    check_final_names(run)
    assert not (run / "mixture").exists()
    fill(machine, run, random.Random(number), number)
    machine.completed(run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
def test_a_disk_that_fails_after_any_number_of_bytes_is_told_and_made_good(machine: Machine, tmp_path: Path, number: int) -> None:
    draw = random.Random(number)
    for attempt in range(40):
        run = tmp_path / f"rough-{attempt // 2}"
        fill(machine, run, draw, number)
        if attempt % 2:
            machine.completed(run)


def in_a_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script where it may mount without anybody else seeing it."""
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    return subprocess.run(["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_a_full_disk_is_told_and_with_more_space_the_run_is_completed(machine: Machine, tmp_path: Path) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    again = " ".join(run_words(machine.recipe, disk / "run"))
    done = in_a_namespace(
        f"mount -t tmpfs -o size=400k tmpfs {disk}; {again}; echo code $?; mount -o remount,size=64m {disk}; {again}; echo code $?; cp -a {disk}/run {kept}"
    )
    assert done.stdout == f"code {MACHINE}\ncode 0\n", done.stderr
    assert f"could not write {disk}/run/" in done.stderr
    assert "No space left on device; free space there, then run the same command again: what is done is kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert lasting(kept) == machine.expected


def test_a_disk_that_is_full_while_duckdb_spills_is_told(machine: Machine, tmp_path: Path) -> None:
    stages = [*STAGES[:2], {f"{TESTS / 'greedy.py'}:Spiller": {}}]
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(machine.folder, stages=stages, target=False))
    run = tmp_path / "run"
    done = on_a_faulty_machine(run_words(recipe, run), prefix=run / "store" / "tmp", after=8_000_000, count=tmp_path / "count")
    said_well(done, "stage 'spiller' failed in finish", os.strerror(errno.ENOSPC))
    assert int.from_bytes((tmp_path / "count").read_bytes(), "little") > 8_000_000
    machine.completed(run, recipe)


def test_a_disk_that_is_full_when_an_event_is_written_leaves_whole_lines(machine: Machine, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = on_a_faulty_machine(run_words(machine.recipe, run), prefix=run / "events.jsonl", after=170, count=tmp_path / "count")
    said_well(done, f"could not write {run}/events.jsonl")
    assert (run / "events.jsonl").stat().st_size == 170
    machine.completed(run)
    assert all(json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines())


@pytest.mark.parametrize(("where", "number"), [("run", errno.EROFS), ("store", errno.EACCES)])
def test_a_folder_that_may_not_be_written_is_named_with_the_remedy(machine: Machine, tmp_path: Path, where: str, number: int) -> None:
    refused = tmp_path / where
    words = run_words(machine.recipe, tmp_path / "run", "--store", tmp_path / "store")
    done = on_a_faulty_machine(words, prefix=refused, number=number, refuse="writing")
    said_well(done, str(refused), os.strerror(number), "name another folder with --run or --store")
    assert not (tmp_path / "run" / "mixture").exists()


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_a_finished_run_on_a_disk_that_was_mounted_read_only_stays_as_it_is(machine: Machine, tmp_path: Path) -> None:
    run = tmp_path / "run"
    machine.completed(run)
    words = " ".join(run_words(machine.recipe, run, "--set", "stages.select.budget=20%"))
    done = in_a_namespace(f"mount --bind {run} {run}; mount -o remount,ro,bind {run}; {words}; echo code $?")
    assert done.stdout == f"code {MACHINE}\n", done.stderr
    assert "Read-only file system; mount it writable, or name another folder" in done.stderr
    assert lasting(run) == machine.expected


def test_an_input_that_may_not_be_read_is_named(machine: Machine, tmp_path: Path) -> None:
    words = run_words(machine.recipe, tmp_path / "run")
    done = on_a_faulty_machine(words, prefix=machine.folder / "pool" / "3.parquet", number=errno.EACCES, refuse="reading")
    assert done.returncode == 3
    assert f"file {machine.folder}/pool/3.parquet; give this user the right to read it, or leave it out of `paths`" in done.stderr
    assert not (tmp_path / "run").exists()


# -- what is said to nobody ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("streams", "code"),
    [("> /dev/full", MACHINE), ("2> /dev/full", 0), (">&- 2>&- <&-", 0), ("2>&1 | true", 0)],
)
def test_streams_that_take_nothing_cost_the_run_nothing(machine: Machine, tmp_path: Path, streams: str, code: int) -> None:
    run = tmp_path / "run"
    words = " ".join(command("run", machine.recipe, "--run", run, "--workers", 2))
    done = subprocess.run(["bash", "-o", "pipefail", "-c", f"{words} {streams}"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    if code:
        assert "error: could not write to standard output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert lasting(run) == machine.expected


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_printed_to_streams_that_are_closed_gets_into_no_file(machine: Machine, tmp_path: Path, workers: int) -> None:
    """Without them the first files that are opened would get their numbers."""
    stages = [*STAGES[:2], {f"{TESTS / 'greedy.py'}:Talker": {}}]
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(machine.folder, stages=stages, target=False))
    run = tmp_path / "run"
    done = subprocess.run(["bash", "-c", f"{' '.join(run_words(recipe, run, workers=workers))} <&- >&- 2>&-"], timeout=120, check=False)
    assert done.returncode == 0
    assert set((tmp_path / "streams").read_text().splitlines()) == {"/dev/null"}


def test_an_answer_whose_reader_has_seen_enough_ends_with_0(machine: Machine) -> None:
    words = " ".join(command("sql", machine.folder / "calm", "'SELECT r.range FROM docs, range(5000) r'", "--format", "csv"))
    done = subprocess.run(["bash", "-c", f"{words} | head -1; echo code ${{PIPESTATUS[0]}}"], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1] == "code 0"
    assert done.stderr == ""


# -- memory, time, signals ----------------------------------------------------------------------------


def limited() -> None:
    """4 GB of address space for each process: enough for a run, not for what Hungry asks for."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


@pytest.mark.parametrize("always", [False, True])
def test_memory_that_runs_out_is_tried_once_more_in_a_fresh_worker(machine: Machine, tmp_path: Path, always: bool) -> None:
    stages = [*STAGES[:2], {f"{TESTS / 'greedy.py'}:Hungry": {"always": always}}]
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(machine.folder, stages=stages, target=False))
    run = tmp_path / "run"
    done = subprocess.run(run_words(recipe, run), capture_output=True, text=True, preexec_fn=limited, timeout=120, check=False)
    meals = (tmp_path / "meals").read_text().split()
    if not always:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == MACHINE
    assert len(meals) >= 2
    assert len(set(meals)) == len(meals)  # never the same process twice
    assert "stage 'hungry' in part " in done.stderr
    assert f"{machine.folder}/pool/" in done.stderr
    assert "memory ran out" in done.stderr
    assert "use fewer --workers, or a machine with more" in done.stderr
    assert "Traceback" not in done.stderr
    check_final_names(run)


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [300, 500, 700, 900, 1100, 1300, 1600, 2000, 2500])
def test_a_run_with_too_little_memory_says_so_and_is_completed_with_more(machine: Machine, tmp_path: Path, megabytes: int) -> None:
    """The dynamic loader (127) and native code that aborts (-6, -11) have no words of ours."""
    limit = (megabytes << 20, megabytes << 20)
    run = tmp_path / "run"
    done = subprocess.run(
        run_words(machine.recipe, run), capture_output=True, text=True, timeout=120, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    )  # fmt: skip
    assert done.returncode in (0, 1, MACHINE, 127, -6, -11), done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode == MACHINE:
        assert "memory ran out" in done.stderr
    machine.completed(run)


def test_a_clock_that_jumps_decides_nothing(machine: Machine, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = on_a_faulty_machine(run_words(machine.recipe, run), clock=True)
    assert done.returncode == 0, done.stderr
    times = [json.loads(line)["time"] for line in (run / "events.jsonl").read_text().splitlines()]
    assert times != sorted(times)  # it did jump
    assert lasting(run) == machine.expected


def test_random_kills_of_parent_worker_and_both_are_made_good(tmp_path: Path) -> None:
    bench = three_stages_bench(tmp_path / "bench")
    tally, draw = Tally(), random.Random(20)
    victims = [name for name, number in VICTIMS.items() if number == signal.SIGKILL]  # the other signals have tests of their own
    for victim in victims:
        assert bench.kill("run", victim, draw.uniform(0.2, bench.seconds), tally) == ""
        assert bench.finish("run") == ""
        shutil.rmtree(bench.folder / "run")
    assert tally.kills.total() + tally.late == len(victims)


@pytest.mark.parametrize("number", [1, 15], ids=["SIGHUP", "SIGTERM"])
def test_a_terminated_run_ends_with_130_and_is_completed(machine: Machine, tmp_path: Path, number: int) -> None:
    stages = [*STAGES[:2], {f"{TESTS / 'gate.py'}:Gate": {}}]
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_for(machine.folder, stages=stages, target=False))
    for name in ("reached", "open"):
        os.mkfifo(tmp_path / name)
    process = subprocess.Popen(run_words(recipe, tmp_path / "run", workers=1), stderr=subprocess.PIPE, text=True)
    (tmp_path / "reached").read_text()  # returns when the run stands at the gate
    process.send_signal(number)
    assert process.communicate(timeout=60)[1].strip() == "interrupted; run the same command again to continue"
    assert process.returncode == 130
    (tmp_path / "open").unlink()
    (tmp_path / "reached").unlink(missing_ok=True)
    check_final_names(tmp_path / "run")
    machine.completed(tmp_path / "run", recipe)


def test_wrong_words_still_say_how_the_command_is_used() -> None:
    done = call("run", "--no-such-option")
    assert done.returncode == 2
    assert "Usage: curate run" in done.stderr.replace("python -m curate", "curate")
    assert "No such option" in done.stderr
