"""Run the benches that need nothing but this checkout, or all of them where pool, targets and a peer are named.

    make bench                                                          # start-up, and kernels on the sample
    python benchmarks/run_all.py --data DIR --peer PYTHON [--big-mb N]  # DIR has web/, sft_pool/, targets/
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def main() -> None:
    """Run each bench as a process of its own, one after the other."""
    words = argparse.ArgumentParser()
    words.add_argument("--data", type=Path)
    words.add_argument("--peer", help="a Python that has data-selection 1.0.3 and nltk 3.8.1")
    words.add_argument("--big-mb", type=int, default=0)
    words.add_argument("--out", type=Path, default=RESULTS)
    given = words.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sample = HERE.parent / "data_samples" / "big"
    subprocess.run([sys.executable, str(sample.parent / "make_sample.py"), str(sample)], check=True)
    peer = ["--peer", given.peer] if given.peer else []
    pool = str(given.data / "web" if given.data else sample / "pool")
    run("startup", given.out)
    run("ngrams", given.out, "--pool", pool, *peer)
    run("ngramlm", given.out)
    run("langid", given.out, "--pool", pool)
    run("rules", given.out, "--pool", pool)
    run("nightly", given.out)
    if given.data:
        targets = given.data / "targets"
        big = ["--big-mb", str(given.big_mb)] if given.big_mb else []
        run("run", given.out, "--pool", pool, "--guide", str(targets / "gsm8k_guide.jsonl"), *peer, *big)
        run("web", given.out, "--pool", pool)
        run("verify", given.out, "--pool", pool, "--guide", str(targets / "humaneval_guide.jsonl"))
        run("decontaminate", given.out, "--pool", pool, "--sets", *(str(targets / f"{name}_test.jsonl") for name in ("gsm8k", "humaneval", "proofnet")))
        run("lm", given.out, "--pool", str(given.data / "sft_pool"), "--documents", "250")
        run("selection", given.out, "--pool", str(given.data / "sft_pool"), "--targets", str(targets))
    subprocess.run([sys.executable, str(HERE / "table.py")], check=True)


def run(name: str, out: Path, *words: str) -> None:
    """One bench, its result in <name>.json."""
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, str(HERE / f"bench_{name}.py"), *words, "--json", str(out / f"{name}.json")], check=True, cwd=HERE)


if __name__ == "__main__":
    main()
