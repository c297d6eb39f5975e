"""CPU seconds of commands that should answer at once, `curate --help` and `curate sql`; and how long the demo takes.

    python benchmarks/bench_startup.py --json OUT
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure

HERE = Path(__file__).parent


def main() -> None:
    """Measure and write the result."""
    words = argparse.ArgumentParser()
    words.add_argument("--rounds", type=int, default=9)
    words.add_argument("--json", required=True)
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        small = HERE.parent / "data_samples" / "small"
        recipe = Path(scratch) / "r.yaml"
        recipe.write_text(
            f"corpus: {{paths: ['{small}/pool'], id: id, source: source}}\ntargets: {{maths: {{guide: ['{small}/guide.jsonl']}}}}\n"
            "stages: [{dsir: {}}, {select: {by: dsir, budget: 50}}]\n"
        )
        run = str(Path(scratch) / "run")
        subprocess.run([sys.executable, "-m", "curate", "run", str(recipe), "--run", run, "-q"], check=True)
        result = {
            "what": "start-up, CPU seconds of the whole process, median", **measure.about(),
            "demo_seconds": demo(Path(scratch)),
            "help_cpu_seconds": cpu(["--help"], given.rounds), "sql_cpu_seconds": cpu(["sql", run, "SELECT count(*) AS n FROM docs"], given.rounds),
        }  # fmt: skip
    Path(given.json).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def demo(folder: Path) -> float:
    """What `make demo` does once all is installed: the sample, the run, the verdict; wall seconds."""
    start = time.perf_counter()
    sample = HERE.parent / "data_samples" / "make_sample.py"
    subprocess.run([sys.executable, str(sample), str(folder / "data_samples" / "big")], check=True, stdout=subprocess.DEVNULL)
    for command in ("run", "compare"):
        words = [sys.executable, "-m", "curate", command, "demo", "--run", "demo-run", "-q"]
        subprocess.run(words, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - start, 1)


def cpu(words: list[str], rounds: int) -> float:
    """The median CPU of a command."""
    found = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "curate", *words], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return round(statistics.median(found), 3)


if __name__ == "__main__":
    main()
