"""A small fastText model that tells two languages apart, for tests that read models from files."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

WORDS = {
    "eng": ["the", "sea", "was", "calm", "and", "a", "ship", "left"],
    "deu": ["das", "meer", "war", "ruhig", "und", "ein", "schiff", "fuhr"],
}
TRAIN = """
import sys, fasttext
model = fasttext.train_supervised(sys.argv[1], thread=1, minn=2, maxn=4, dim=8, epoch=10, bucket=2000, verbose=0)
model.save_model(sys.argv[2])
"""


def two_languages(folder: Path) -> Path:
    """Train it in a process of its own: fastText reads memory that it never set, and glibc is told to hand out zeros."""
    draw = random.Random(1)
    lines = [f"__label__{name} {' '.join(draw.choice(own) for _ in range(8))}\n" for _ in range(200) for name, own in WORDS.items()]
    (folder / "train.txt").write_text("".join(lines))
    words = [sys.executable, "-c", TRAIN, str(folder / "train.txt"), str(folder / "model.bin")]
    subprocess.run(words, check=True, capture_output=True, env=os.environ | {"MALLOC_PERTURB_": "255"})
    return folder / "model.bin"
