"""What DSIR chooses from a pool whose sources are known, for several guides, beside random: the share of the right
source in the top 2,000 (a sanity column: it misranks), and the n-gram judge's bits per byte on the test.

    python benchmarks/bench_selection.py --pool DIR --targets DIR --json OUT
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import measure

import curate

#: The target's files, and the source in the pool that is of its kind.
TARGETS = {"gsm8k": "gsm8k", "humaneval": "gpteacher_codegen", "proofnet": "lean_mathlib"}
TOP = 2000


def main() -> None:
    """Measure and write the result."""
    words = argparse.ArgumentParser()
    words.add_argument("--pool", required=True)
    words.add_argument("--targets", required=True)
    words.add_argument("--json", required=True)
    given = words.parse_args()
    result: dict[str, Any] = {"what": f"top {TOP} of the pool by DSIR beside random draws of equal bytes", **measure.about(), "rows": []}
    with tempfile.TemporaryDirectory() as scratch:
        for target, right in TARGETS.items():
            result["rows"].append(one(Path(given.pool), Path(given.targets), target, right, Path(scratch)))
    Path(given.json).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def one(pool: Path, targets: Path, target: str, right: str, scratch: Path) -> dict[str, Any]:
    """Run and compare one target."""
    recipe = {
        "name": target,
        "corpus": {"paths": [str(pool.resolve())], "text": "text", "id": "id", "source": "source"},
        "targets": {target: {"guide": [str((targets / f"{target}_guide.jsonl").resolve())], "test": [str((targets / f"{target}_test.jsonl").resolve())]}},
        "seed": 7,
        "stages": [{"dedup_exact": {}}, {"dsir": {}}, {"select": {"by": "dsir", "how": "top_k", "budget": TOP}}],
    }
    folder = scratch / target
    start = time.perf_counter()
    found = curate.compare(recipe, run=folder)
    seconds = time.perf_counter() - start
    run = curate.open_run(folder)
    (share,) = run.arrow(f"SELECT avg((source = '{right}')::INT) AS s FROM selected")["s"].to_pylist()
    (chance,) = run.arrow(f"SELECT avg((source = '{right}')::INT) AS s FROM docs WHERE dsir IS NOT NULL")["s"].to_pylist()
    item = found.targets[0]
    verdict = item.verdict
    return {
        "target": target, "right_source": right, "share_in_top": round(share, 4), "share_in_pool": round(chance, 4),
        "bits_per_byte": round(verdict.selection_bits_per_byte, 4), "random_bits_per_byte": round(verdict.random_bits_per_byte, 4),
        "random_sd": round(verdict.random_sd, 4), "difference": round(verdict.difference, 4), "low": round(verdict.low, 4), "high": round(verdict.high, 4),
        "verdict": verdict.word, "kl_reduction": round(item.kl.selection, 4), "kl_reduction_random": round(item.kl.random_mean, 4),
        "selection_mb": round(found.selection_bytes / 1e6, 3), "seconds": round(seconds, 1),
    }  # fmt: skip


if __name__ == "__main__":
    main()
