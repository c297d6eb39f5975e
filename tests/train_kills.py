"""Trainings killed at random moments and started again, held bit for bit against one that nobody disturbed.

    python tests/train_kills.py --kills 20 --out benchmarks/results/train_kills.json

Each is a program of its own, killed with SIGKILL at a moment drawn over the length of a whole training, as often as it takes to
end: every time it goes on from its last checkpoint. Weights and the curve must then be those of the undisturbed training.
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
#: Long enough that a kill mostly falls between its steps: 120 steps, a checkpoint after each.
WORDS = ("1", "120")


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The training as a program."""
    return subprocess.Popen([sys.executable, str(PROGRAM), str(folder), *WORDS], env={**os.environ, "OMP_NUM_THREADS": "1"})


def reached(folder: Path) -> int:
    """The step of the last checkpoint, 0 for none."""
    steps = [int(p.name[5:]) for p in (folder / "checkpoints").glob("step-*")]
    return max(steps, default=0)


def began(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the training has begun: importing the libraries takes most of a short program's time."""
    while process.poll() is None and not (folder / "training.json").exists():
        time.sleep(0.002)


def outcome(folder: Path) -> tuple[bytes, Any]:
    """The weights' bytes, and the curve without its times."""
    import pyarrow.parquet as pq

    from curate.training import METRICS, OF_TIME

    table = pq.read_table(folder / "metrics.parquet", columns=[n for n in METRICS.names if n not in OF_TIME])
    return (folder / "model" / "model.safetensors").read_bytes(), table


def kills(count: int, seed: int = 0) -> dict[str, Any]:
    """Kill `count` times in all; returns what was killed where, and how many trainings ended as the undisturbed one."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        whole = start(Path(place) / "whole")
        began(Path(place) / "whole", whole)
        started = time.monotonic()
        assert whole.wait() == 0
        length = time.monotonic() - started
        expected = outcome(Path(place) / "whole")
        at: list[int] = []
        trainings = equal = 0
        while len(at) < count:
            folder = Path(place) / f"t{trainings}"
            while len(at) < count:
                process = start(folder)
                began(folder, process)
                time.sleep(draw.uniform(0, length))
                if process.poll() is not None:
                    break
                process.send_signal(signal.SIGKILL)
                process.wait()
                at.append(reached(folder))
            if not (folder / "model" / "manifest.json").exists():
                assert start(folder).wait() == 0
            trainings += 1
            weights, curve = outcome(folder)
            equal += weights == expected[0] and curve.equals(expected[1])
    return {"kills": len(at), "last_checkpoint_when_killed": at, "trainings": trainings, "bit_equal": equal, "steps": int(WORDS[1])}


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    words.add_argument("--kills", type=int, default=20)
    words.add_argument("--out", type=Path)
    given = words.parse_args()
    found = kills(given.kills)
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    sys.exit(0 if found["bit_equal"] == found["trainings"] else 1)
