"""What docs/scheduling.md tells people to paste is tried: the line for cron, the units for systemd, the script for Slurm."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import (
    STAGES,
    end_group,
    lasting,
    leftovers,
    recipe_for,
    small_rows,
    write_recipe,
    write_rows,
)

PAGE = (Path(__file__).parent.parent / "docs" / "scheduling.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What the page calls /srv/corpus, and a command `curate` on the path."""
    rows = small_rows()[:120]
    for n in range(6):
        write_rows(tmp_path / "corpus" / "pool" / f"{n}.parquet", rows[n::6])
    write_recipe(tmp_path / "corpus" / "nightly.yaml", recipe_for(tmp_path / "corpus", stages=STAGES) | {"name": "nightly"})
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "curate"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m curate "$@"\n')
    command.chmod(0o755)
    return tmp_path


def start(place: Path, script: str, **environment: str) -> subprocess.Popen[str]:
    """Run a script as the page has it, but for the folder."""
    assert "/srv/corpus" in script
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", "-c", script.replace("/srv/corpus", str(place / "corpus"))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"PATH": path} | environment,
    )  # fmt: skip


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    try:
        said = [process.communicate(timeout=100) for process in processes]
    finally:
        for process in processes:
            end_group(process)
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def test_the_line_for_cron_may_be_started_twice_at_once_and_says_nothing(place: Path) -> None:
    [line] = blocks("cron")
    times, script = line.split(" ", 5)[:5], line.split(" ", 5)[5]
    assert times == ["15", "2", "*", "*", "*"]
    assert "%" not in script  # cron would make it the end of the line
    assert ended([start(place, script) for _ in range(2)]) == [(0, "", ""), (0, "", "")]
    folder = place / "corpus" / "runs" / "nightly"
    before = lasting(folder)
    assert leftovers(folder) == []
    assert ended([start(place, script)]) == [(0, "", "")]
    assert lasting(folder) == before


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    service, timer = blocks("ini")
    assert service.startswith("[Unit]\nDescription=Choose the training data of the night")
    for name, text in (("curate.service", service), ("curate.timer", timer)):
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "curate.service"), str(tmp_path / "curate.timer")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [line for line in done.stderr.splitlines() if "curate." in line] == []


def test_the_script_for_slurm_shares_one_run_among_the_tasks_of_an_array(place: Path) -> None:
    [script] = [block for block in blocks("bash") if "SBATCH" in block]
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
    [line] = [start(place, script, SLURM_CPUS_PER_TASK="1", SLURM_ARRAY_TASK_ID="0", CURATE_HOST="solo")]
    assert ended([line]) == [(0, "", "")]
    expected = lasting(place / "corpus" / "runs" / "nightly")
    shutil.rmtree(place / "corpus" / "runs")
    tasks = [start(place, script, SLURM_CPUS_PER_TASK="1", SLURM_ARRAY_TASK_ID=str(n), CURATE_HOST=f"node{n}") for n in range(3)]
    assert ended(tasks) == [(0, "", "")] * 3
    assert lasting(place / "corpus" / "runs" / "nightly") == expected
    assert leftovers(place / "corpus" / "runs" / "nightly") == []


def test_the_codes_on_the_page_are_those_of_the_command() -> None:
    from curate.cli import EPILOG

    codes = {int(code) for code in re.findall(r"(\d+) \w", EPILOG)}
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert codes <= told
    assert told - codes == {137}  # the system's own
