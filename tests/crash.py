"""Run the command with the power cut at its n-th step on the disk: `python crash.py N COUNT_FILE WORDS...`.

Steps are writes of tables, syncs, renames, links and removals. At step N a write is left half done, anything else is not done,
and the process is killed. With N of 0 nothing happens, and the number of steps is written to COUNT_FILE.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curate.cli import main

at = int(sys.argv[1])
steps = 0


def cut(before: Callable[[], None] = lambda: None) -> None:
    global steps
    if threading.current_thread() is not threading.main_thread():
        return  # heartbeats and the status: how many there are depends on the time
    steps += 1
    if steps == at:
        before()
        os.kill(os.getpid(), signal.SIGKILL)


def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
    def step(*given: Any, **named: Any) -> Any:
        cut()
        return real(*given, **named)

    return step


def torn(real: Callable[..., Any]) -> Callable[..., Any]:
    def step(table: Any, where: Any, **named: Any) -> Any:
        def half() -> None:
            real(table, where, **named)
            os.truncate(where, os.path.getsize(where) // 2)

        cut(half)
        return real(table, where, **named)

    return step


pq.write_table = torn(pq.write_table)
for module, name in ((os, "replace"), (os, "rename"), (os, "fsync"), (os, "symlink"), (os, "unlink"), (os, "rmdir")):
    setattr(module, name, guarded(getattr(module, name)))
Path.rename = guarded(Path.rename)  # type: ignore[method-assign]
Path.symlink_to = guarded(Path.symlink_to)  # type: ignore[method-assign]
try:
    main(sys.argv[3:])
finally:
    Path(sys.argv[2]).write_text(str(steps))
