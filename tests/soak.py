"""Kill runs at random moments and compare what the same command then leaves with an undisturbed run, many times.

    python tests/soak.py [--kills 200] [--seed 1] [--out benchmarks/results/soak.json]     (make soak SOAK=200)

Half of the kills hit the recipe `demo` over a sample of 1 MB, half a recipe of three stages over the committed
sample. A round is a run folder: one to three kills, then the command until it is done. Everything that is promised
byte for byte must equal the undisturbed run's, and nothing unfinished may lie about. What is found otherwise is
printed with the round's seed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from run_folders import (
    check_final_names,
    command,
    end_group,
    lasting,
    leftovers,
    recipe_for,
    small_rows,
    write_recipe,
    write_rows,
)

ROOT = Path(__file__).parent.parent
#: Who is killed, and with what. Ctrl-C and SIGTERM reach the parent, which ends its workers.
VICTIMS = {"parent": signal.SIGKILL, "worker": signal.SIGKILL, "both": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
#: A run of these recipes takes one to five seconds; who needs longer hangs.
PATIENCE_SECONDS = 300


@dataclass
class Tally:
    """What was done and what came of it."""

    kills: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    late: int = 0  # the run was done before the kill
    identical: int = 0
    different: list[str] = field(default_factory=list)


class Bench:
    """A recipe, its undisturbed result, and rounds of kills."""

    def __init__(self, folder: Path, recipe: str | Path, workers: int = 2) -> None:
        self.folder = folder
        self.recipe = recipe
        self.workers = workers
        started = time.monotonic()
        done = self._start("calm")
        said = done.communicate(timeout=PATIENCE_SECONDS)[1]
        assert done.returncode == 0, said
        self.seconds = time.monotonic() - started
        self.expected = lasting(folder / "calm")

    def _start(self, run: str) -> subprocess.Popen[str]:
        words = command("run", self.recipe, "--run", self.folder / run, "--workers", self.workers, "-q")
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])  # this checkout, not one that is installed
        return subprocess.Popen(words, cwd=self.folder, env=os.environ | {"PYTHONPATH": paths}, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def round(self, draw: random.Random, tally: Tally, most: int = 3) -> None:
        """Kill a run of a fresh folder up to `most` times, finish it, compare it."""
        tally.rounds += 1
        name = f"round-{tally.rounds}"
        story = []
        for _ in range(draw.randint(1, most)):
            victim, moment = draw.choice(list(VICTIMS)), draw.uniform(0.0, self.seconds * 1.1)
            story.append(f"{victim} at {moment:.3f} s")
            wrong = self.kill(name, victim, moment, tally)
            if wrong:
                tally.different.append(f"{name}: {', '.join(story)}: {wrong}")
                return
        wrong = self.finish(name)
        if wrong:
            tally.different.append(f"{name}: {', '.join(story)}: {wrong}")
            return
        tally.identical += 1
        shutil.rmtree(self.folder / name)

    def kill(self, name: str, victim: str, moment: float, tally: Tally) -> str:
        """Start the run and kill at a moment; returns what should not have been, or nothing."""
        fresh, started = not (self.folder / name).exists(), time.monotonic()
        process = self._start(name)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            workers = workers_of(process.pid) if victim == "worker" else []
            if victim == "both":
                end_group(process)
            elif victim == "worker" and workers:
                os.kill(workers[-1], signal.SIGKILL)
            else:
                victim = "parent" if victim == "worker" else victim
                process.send_signal(VICTIMS[victim])
            tally.kills[victim] += 1
        else:
            tally.late += 1
            if fresh:  # the machine is less busy than when the undisturbed run was timed
                self.seconds = min(self.seconds, time.monotonic() - started)
            victim = "worker"  # nobody was hit: it must have ended well
        try:
            said = process.communicate(timeout=PATIENCE_SECONDS)[1]
        except subprocess.TimeoutExpired:
            end_group(process)
            return f"still there {PATIENCE_SECONDS} s after the kill"
        code = process.returncode
        tally.ends[str(code)] += 1
        # The interpreter's own start, before the program is read, ends by the signal itself.
        starting = victim == "SIGINT" and code in (1, -signal.SIGINT) and said.rstrip().endswith("KeyboardInterrupt")
        right = {"worker": (0,), "SIGTERM": (130, 0, -signal.SIGTERM), "SIGINT": (130, 0, -signal.SIGINT)}.get(victim, (-signal.SIGKILL, 0))
        if (code not in right or "Traceback" in said) and not starting:
            return f"exit {code}: {said[-1500:]}"
        if (self.folder / name).exists():
            try:
                check_final_names(self.folder / name)
            except Exception as error:
                return f"half-written under a final name: {type(error).__name__}: {error}"
        return ""

    def finish(self, name: str) -> str:
        """Run it to its end and compare."""
        process = self._start(name)
        said = process.communicate(timeout=PATIENCE_SECONDS)[1]
        if process.returncode != 0:
            return f"the last run ended with {process.returncode}: {said[-500:]}"
        found = lasting(self.folder / name)
        if found != self.expected:
            wrong = sorted(k for k in found.keys() | self.expected.keys() if found.get(k) != self.expected.get(k))
            return f"{len(wrong)} files differ, the first {wrong[0]}"
        return f"left over: {left}" if (left := leftovers(self.folder / name)) else ""


def workers_of(parent: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return found


def demo_bench(folder: Path, mb: float = 1.0) -> Bench:
    """The recipe that ships as `demo`, over a small sample."""
    folder.mkdir(parents=True)
    sample = [sys.executable, ROOT / "data_samples" / "make_sample.py", folder / "data_samples" / "big", "--mb", str(mb)]
    subprocess.run(sample, check=True, capture_output=True)
    return Bench(folder, "demo")


def three_stages_bench(folder: Path) -> Bench:
    """A length filter, near-duplicates and a random choice, over the committed sample in twelve files."""
    rows = small_rows()
    for n in range(12):
        write_rows(folder / "pool" / f"{n:02}.parquet", rows[n::12])
    stages = [{"length": {"min_words": 5}}, {"minhash": {}}, {"select": {"how": "random", "budget": "30%"}}]
    return Bench(folder, write_recipe(folder / "recipe.yaml", recipe_for(folder, stages=stages, target=False)))


def soak(kills: int, seed: int, folder: Path) -> dict[str, Tally]:
    """Half of the kills for each recipe."""
    found = {}
    for name, bench in (("demo", demo_bench(folder / "demo")), ("three stages", three_stages_bench(folder / "three"))):
        tally = found[name] = Tally()
        draw = random.Random(f"{seed} {name}")
        while tally.kills.total() < kills // 2 and len(tally.different) < 5:
            bench.round(draw, tally, most=min(3, kills // 2 - tally.kills.total()))
            if tally.rounds % 10 == 0:
                print(f"{name}: {tally.kills.total()} kills, {tally.identical} of {tally.rounds} rounds identical", flush=True)
    return found


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the counts here, as JSON")
    asked = parser.parse_args(words)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from measure import about

    started = time.monotonic()
    facts = about()
    with tempfile.TemporaryDirectory(prefix="curate-soak-") as folder:
        found = soak(asked.kills, asked.seed, Path(folder))
    recipes = {
        name: {
            "kills": tally.kills.total(), "by_victim": dict(sorted(tally.kills.items())), "runs_by_exit_code": dict(sorted(tally.ends.items())),
            "done_before_the_kill": tally.late, "rounds": tally.rounds, "identical": tally.identical, "different": tally.different,
        }
        for name, tally in found.items()
    }  # fmt: skip
    result = {"what": "random kills; the same command again, compared byte for byte", **facts, "seed": asked.seed,
              "seconds": round(time.monotonic() - started), "kills": sum(t.kills.total() for t in found.values()),
              "different": sum(len(t.different) for t in found.values()), "recipes": recipes}  # fmt: skip
    print(json.dumps(result, indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
