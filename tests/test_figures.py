"""The README's numbers are the committed results, not somebody's memory of them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_readmes_tables_are_made_from_the_committed_results() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "table.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
