"""What `curate status` says of a run: while it works, after it ended well or badly, and when nobody lives to say it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from run_folders import (
    call,
    command,
    end_group,
    recipe_for,
    small_rows,
    write_pool,
    write_recipe,
    write_rows,
)

from curate.events import Events
from curate.lease import held, newest
from curate.status import Report, Status, _report, described, look, told

TESTS = Path(__file__).parent


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    write_rows(tmp_path / "pool" / "0.parquet", small_rows()[:60])
    for name in ("reached", "open"):
        os.mkfifo(tmp_path / name)
    stages: list[dict[str, Any]] = [{"dedup_exact": {}}, {f"{TESTS / 'gate.py'}:Gate": {"as": "gate"}}, {"select": {"how": "random", "budget": 20}}]
    write_recipe(tmp_path / "recipe.yaml", recipe_for(tmp_path, stages=stages, target=False))
    return tmp_path


def asked(folder: Path) -> dict[str, Any]:
    done = call("status", folder, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_run_is_told_while_it_works_when_it_was_killed_and_when_it_has_finished(bench: Path) -> None:
    words = ("run", bench / "recipe.yaml", "--run", bench / "run", "--workers", 1, "-q")
    process = subprocess.Popen(command(*words), start_new_session=True)
    try:
        (bench / "reached").read_text()
        working = asked(bench / "run")
        assert (working["state"], working["process"]) == ("running", process.pid)
        assert (working["recipe"], working["error"], working["exit_code"], working["kept"]) == ("proof", "", None, None)
        said = call("status", bench / "run").stdout
        assert said.startswith("proof: running since 2")
        assert f"process {process.pid} on " in said
    finally:
        end_group(process)
        process.wait()
    assert asked(bench / "run")["state"] == "killed"
    assert f"process {process.pid} on " in call("status", bench / "run").stdout
    assert call("status", bench / "run").stdout.endswith("run the same command again to continue\n")
    assert call(*words).returncode == 0
    done = asked(bench / "run")
    assert (done["state"], done["read"], done["kept"], done["phase"], done["exit_code"]) == ("finished", 60, 20, "", 0)
    assert "20 of 60 documents kept" in call("status", bench / "run").stdout


def test_an_interruption_and_a_failure_are_told_with_what_was_said(bench: Path) -> None:
    words = ("run", bench / "recipe.yaml", "--run", bench / "run", "--workers", 1, "-q")
    process = subprocess.Popen(command(*words), start_new_session=True, stderr=subprocess.PIPE)
    try:
        (bench / "reached").read_text()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        end_group(process)
    assert process.returncode == 130
    assert asked(bench / "run")["state"] == "interrupted"
    assert call("status", bench / "run").stdout.startswith("proof: was interrupted")
    write_rows(bench / "pool" / "1.parquet", small_rows()[:1])  # an id that is there already
    failed = call(*words)
    assert failed.returncode == 3
    told_of = asked(bench / "run")
    assert (told_of["state"], told_of["exit_code"]) == ("failed", 3)
    assert failed.stderr == f"error: {told_of['error']}\n"
    assert told_of["error"] in call("status", bench / "run").stdout
    wrong = call("run", bench / "recipe.yaml", "--run", bench / "run", "--set", "stages.select.budget=none", "-q")
    assert wrong.returncode == 2


def test_a_folder_in_which_nothing_ran_is_no_run(tmp_path: Path) -> None:
    done = call("status", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: expected a run folder, got {tmp_path}, in which no run has worked\n"


def test_status_loads_no_table_library(tmp_path: Path) -> None:
    with held(tmp_path):
        pass
    program = f"import sys\nfrom curate.cli import main\ntry:\n    main(['status', {str(tmp_path)!r}])\nexcept SystemExit as end:\n    assert not end.code\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"pyarrow", "numpy", "duckdb", "polars"} == set()


def test_a_holder_on_another_machine_is_running_while_its_counter_moves_and_silent_when_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_LEASE_SECONDS", "2")
    monkeypatch.setenv("CURATE_HOST", "there")
    with held(tmp_path):
        monkeypatch.setenv("CURATE_HOST", "here")
        assert look(tmp_path).state == "running"
        monkeypatch.setenv("CURATE_HOST", "there")
        path = newest(tmp_path)
        assert path is not None
        kept = path.read_bytes()
    path.write_bytes(kept)  # as it would be if the machine had lost its power
    monkeypatch.setenv("CURATE_HOST", "here")
    report = look(tmp_path)
    assert report.state == "silent"
    assert "nothing was heard of process" in described(report)


def test_the_rate_and_the_time_left_are_those_of_the_pass() -> None:
    status = Status(nonce="n", host="node7", process=42, recipe="demo", started=1.8e9, phase="dsir", phase_seconds=2.0, documents=3000,
                    bytes=50_000_000, total_bytes=200_000_000)  # fmt: skip
    report = _report(Path("runs/demo"), status, "running")
    assert (report.bytes_per_second, report.seconds_left) == (25_000_000, 6.0)
    assert described(report) == (
        "demo: running since 2027-01-15 08:00:00 UTC, process 42 on node7\n"
        "dsir: 50.0 of 200.0 MB, 3,000 documents, 25.0 MB/s, about 6 s left in this pass"
    )
    killed = _report(Path("runs/demo"), status, "killed")
    assert (killed.bytes_per_second, killed.seconds_left) == (None, None)
    assert described(killed) == (
        "demo: was killed in dsir (process 42 on node7, which began 2027-01-15 08:00:00 UTC); run the same command again to continue"
    )


def test_a_block_that_fails_before_it_wrote_anything_leaves_no_status(tmp_path: Path) -> None:
    def fails() -> None:
        with held(tmp_path / "run") as lease, told(tmp_path / "run", lease, Events()):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert list(tmp_path.iterdir()) == []


def test_a_status_of_an_earlier_holder_is_not_told_of_the_present_one(tmp_path: Path) -> None:
    events = Events()
    with held(tmp_path) as lease, told(tmp_path, lease, events):
        events.emit("started", recipe="demo", parts=3)
        events.emit("progress", keep=False, phase="dsir", documents=5, bytes=7, total=9)
        events.emit("finished", documents=10, kept=2)
    assert (look(tmp_path).kept, look(tmp_path).read) == (2, 10)
    with held(tmp_path):
        report = look(tmp_path)
        assert (report.state, report.recipe, report.phase, report.kept) == ("running", "demo", "", None)
        assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_what_is_told_is_the_runs_and_not_that_of_who_cleaned_up_behind_it(bench: Path) -> None:
    words = ("run", bench / "recipe.yaml", "--run", bench / "run", "--workers", 1, "-q")
    process = subprocess.Popen(command(*words), start_new_session=True)
    try:
        (bench / "reached").read_text()
    finally:
        end_group(process)
        process.wait()
    with held(bench / "run"):  # as a pruning holds it
        pass
    assert asked(bench / "run")["state"] == "killed"
    assert call(*words).returncode == 0
    before = asked(bench / "run")
    for cleaning in (("prune", bench / "run"), ("verify", bench / "run", "--repair")):
        assert call(*cleaning).returncode == 0
        assert asked(bench / "run") == before


def test_after_a_pruning_and_a_repair_it_is_told_what_the_run_did_and_what_is_gone(tmp_path: Path) -> None:
    recipe = write_recipe(write_pool(tmp_path) / "recipe.yaml", recipe_for(tmp_path, stages=[{"length": {"min_bytes": 20}}], target=False))
    words = ("run", recipe, "--run", tmp_path / "run", "--workers", 1, "-q")
    assert call(*words).returncode == 0
    assert call(*words, "--set", "stages.length.min_bytes=300").returncode == 0
    told = asked(tmp_path / "run")
    assert (told["state"], told["read"], told["removed"]) == ("finished", 599, 0)
    assert call("prune", tmp_path / "run").returncode == 0
    assert not (tmp_path / "run" / "mixtures").is_symlink()
    assert len(list((tmp_path / "run" / "mixtures").iterdir())) == 1  # the first publication is gone
    assert asked(tmp_path / "run") == told

    next((tmp_path / "run" / "docs").glob("docs-*.parquet")).write_bytes(b"rotten")
    next((tmp_path / "run" / "store").glob("*/verdict/*.parquet")).write_bytes(b"rotten")
    assert call(*words, "--set", "stages.length.min_bytes=300").returncode == 3  # it says so, and so does its status
    assert asked(tmp_path / "run")["state"] == "failed"
    assert "is damaged" in asked(tmp_path / "run")["error"]
    assert call("verify", tmp_path / "run", "--repair").returncode != 70
    repaired = asked(tmp_path / "run")
    assert repaired["removed"] == 2  # the verdict, and the folder of docs
    assert not (tmp_path / "run" / "docs").exists()
    assert call(*words, "--set", "stages.length.min_bytes=300").returncode == 0
    after = asked(tmp_path / "run")
    assert (after["state"], after["read"], after["kept"], after["removed"]) == ("finished", told["read"], told["kept"], 0)
    next((tmp_path / "run" / "docs").glob("docs-*.parquet")).write_bytes(b"rotten")
    call("verify", tmp_path / "run", "--repair")
    assert asked(tmp_path / "run")["state"] == "finished"
    said = call("status", tmp_path / "run").stdout
    assert f"{told['kept']:,} of 599 documents kept" in said
    assert "1 of its files were damaged and removed by a repair: run the same command again" in said
