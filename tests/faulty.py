"""The command on a machine that fails: a disk that is full after N bytes or refuses, a clock that jumps.

`faulty.c` is compiled once and loaded before the C library, so what pyarrow and DuckDB write fails as well.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest
from run_folders import command

HERE = Path(__file__).parent


@cache
def library() -> Path:
    """The compiled faults; a test is skipped where there is no Linux or no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or not Path("/proc/self/fd").exists():
        pytest.skip("needs Linux and a C compiler")
    built = Path(tempfile.mkdtemp(prefix="faulty-")) / "faulty.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", built, HERE / "faulty.c", "-ldl"], check=True)
    return built


def on_a_faulty_machine(
    words: list[str], *, prefix: Path | None = None, number: int = errno.ENOSPC, after: int | None = None, refuse: str = "", clock: bool = False,
    count: Path | None = None, timeout: float = 120,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run a command where what is under `prefix` fails with `number`: after so many bytes written, or on `refuse`.

    `refuse` is "writing" or "reading"; `count` is a file for the bytes that were written, read afterwards by whoever
    wants to know how many there are.
    """
    faults = {"LD_PRELOAD": str(library()), "FAULTY_ERRNO": str(number)}
    if prefix is not None:
        faults["FAULTY_PREFIX"] = str(prefix)
    if count is not None:
        count.write_bytes(bytes(8))
        faults |= {"FAULTY_COUNT": str(count), "FAULTY_AFTER": str(after if after is not None else 1 << 62)}
    if refuse:
        faults[{"writing": "FAULTY_OPEN", "reading": "FAULTY_READ"}[refuse]] = "1"
    if clock:
        faults["FAULTY_CLOCK"] = "1"
    return subprocess.run(words, env=os.environ | faults, capture_output=True, text=True, timeout=timeout, start_new_session=True, check=False)


def run_words(recipe: Path, folder: Path, *more: object, workers: int = 2) -> list[str]:
    return command("run", recipe, "--run", folder, "--workers", workers, "-q", *more)
