"""What every result says of where it came from."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any


def about() -> dict[str, Any]:
    """Commit, machine, processors, load and versions."""
    here = Path(__file__).parent
    commit = subprocess.run(["git", "-C", str(here), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(["git", "-C", str(here), "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    return {
        "commit": commit + ("+" if changed else ""), "machine": _processor(), "processors": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2), "python": platform.python_version(), "pyarrow": version("pyarrow"), "duckdb": version("duckdb"),
    }  # fmt: skip


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
