"""Trainings killed at random moments and started again, held bit for bit against one that nobody disturbed.

    python tests/train_kills.py --kills 20 --out benchmarks/results/train_kills.json

Each is a program of its own, killed with SIGKILL a random moment after a random step, and started again: it goes on from its last
checkpoint. Weights and the curve must then be those of the undisturbed training.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent / "tiny_training.py"
STEPS = 60
#: A kill falls up to so long after a step's checkpoint: some steps later, within a step, or while a checkpoint is written.
AFTER_SECONDS = 0.05


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The training as a program."""
    return subprocess.Popen([sys.executable, str(PROGRAM), str(folder), "1", str(STEPS)], env={**os.environ, "OMP_NUM_THREADS": "1"})


def reached(folder: Path) -> int:
    """The step of the last checkpoint, 0 for none."""
    steps = [int(p.name[5:]) for p in (folder / "checkpoints").glob("step-*")]
    return max(steps, default=0)


def outcome(folder: Path) -> tuple[bytes, Any]:
    """The weights' bytes, and the curve without its times."""
    import pyarrow.parquet as pq

    from curate.training import METRICS, OF_TIME

    table = pq.read_table(folder / "metrics.parquet", columns=[n for n in METRICS.names if n not in OF_TIME])
    return (folder / "model" / "model.safetensors").read_bytes(), table


def kills(count: int, seed: int = 0) -> dict[str, Any]:
    """Kill `count` trainings; returns after which steps, and how many ended as the undisturbed one."""
    from tiny_training import data, spec

    from curate.training import train

    draw = random.Random(seed)
    at: list[int] = []
    equal = 0
    with tempfile.TemporaryDirectory() as place:
        settings = spec(save_every=1, steps=STEPS)
        expected = outcome(train(data(), settings, Path(place) / "whole").folder)
        for number in range(count):
            folder, step = Path(place) / f"t{number}", draw.randrange(STEPS)
            process = start(folder)
            while process.poll() is None and (reached(folder) < step or not (folder / "training.json").exists()):
                time.sleep(0.001)
            time.sleep(draw.uniform(0, AFTER_SECONDS))
            process.send_signal(signal.SIGKILL)
            process.wait()
            at.append(reached(folder))
            weights, curve = outcome(train(data(), settings, folder).folder)
            equal += weights == expected[0] and curve.equals(expected[1])
    return {"kills": count, "last_checkpoint_when_killed": at, "steps": STEPS, "bit_equal": equal}


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    words.add_argument("--kills", type=int, default=20)
    words.add_argument("--out", type=Path)
    given = words.parse_args()
    found = kills(given.kills)
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    sys.exit(0 if found["bit_equal"] == found["kills"] else 1)
