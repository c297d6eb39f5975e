"""What scorers choose from a pool whose sources are known, for several guides, beside random: the share of the right
source in the top 2,000 (a sanity column: it misranks), and the n-gram judge's bits per byte on the test.

    python benchmarks/bench_selection.py --pool DIR --targets DIR --json OUT [--by dsir --by color_filter --by rds:MODEL] [--documents N] [--top 2000]

`--documents` draws so many of the pool, for scorers that are dear; every scorer then chooses from the same. `rds:MODEL` is
RDS+ (position-weighted mean of the last hidden state, guide examples in turn) by the model in a folder; for other scorers
what stands behind the colon is their settings as JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq

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
    words.add_argument("--by", action="append", help="a scorer (default: dsir); repeatable")
    words.add_argument("--documents", type=int, default=0)
    words.add_argument("--top", type=int, default=TOP)
    given = words.parse_args()
    by = given.by or ["dsir"]
    result: dict[str, Any] = {"what": f"top {given.top} of the pool by {', '.join(name.partition(':')[0] for name in by)} beside random draws of equal bytes", **measure.about(), "rows": []}
    with tempfile.TemporaryDirectory() as scratch:
        pool = Path(given.pool)
        if given.documents:
            pool = Path(scratch) / "pool.parquet"
            whole = ds.dataset(given.pool).to_table()
            drawn = np.sort(np.random.default_rng(7).choice(len(whole), given.documents, replace=False))
            pq.write_table(whole.take(drawn), pool, row_group_size=500)
            result["documents"] = given.documents
        for target, right in TARGETS.items():
            for scorer in by:
                result["rows"].append(one(pool, Path(given.targets), target, right, Path(scratch), scorer, given.top))
                print(json.dumps(result["rows"][-1]), flush=True)
    Path(given.json).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def one(pool: Path, targets: Path, target: str, right: str, scratch: Path, scorer: str, top: int) -> dict[str, Any]:
    """Run and compare one target under one scorer."""
    recipe = {
        "name": target,
        "corpus": {"paths": [str(pool.resolve())], "text": "text", "id": "id", "source": "source"},
        "targets": {target: {"guide": [str((targets / f"{target}_guide.jsonl").resolve())], "test": [str((targets / f"{target}_test.jsonl").resolve())]}},
        "seed": 7,
        "stages": [{"dedup_exact": {}}, *chosen(scorer, top, scratch)],
    }
    scorer, _, model = scorer.partition(":")
    folder = scratch / f"{target}-{scorer}"
    start = time.perf_counter()
    found = curate.compare(recipe, run=folder)
    seconds = time.perf_counter() - start
    run = curate.open_run(folder)
    (share,) = run.arrow(f"SELECT avg((source = '{right}')::INT) AS s FROM selected")["s"].to_pylist()
    (chance,) = run.arrow(f"SELECT avg((source = '{right}')::INT) AS s FROM docs WHERE dedup_exact_keep")["s"].to_pylist()
    item = found.targets[0]
    verdict = item.verdict
    return {
        "target": target, "scorer": scorer, **({"with": Path(model).name} if model else {}), "right_source": right, "share_in_top": round(share, 4), "share_in_pool": round(chance, 4),
        "bits_per_byte": round(verdict.selection_bits_per_byte, 4), "random_bits_per_byte": round(verdict.random_bits_per_byte, 4),
        "random_sd": round(verdict.random_sd, 4), "difference": round(verdict.difference, 4), "low": round(verdict.low, 4), "high": round(verdict.high, 4),
        "verdict": verdict.word, "kl_reduction": round(item.kl.selection, 4), "kl_reduction_random": round(item.kl.random_mean, 4),
        "selection_mb": round(found.selection_bytes / 1e6, 3), "seconds": round(seconds, 1),
    }  # fmt: skip


def chosen(scorer: str, top: int, scratch: Path) -> list[dict[str, Any]]:
    """The stages that score and choose."""
    name, _, model = scorer.partition(":")
    if name != "rds":
        return [{name: json.loads(model or "{}")}, {"select": {"by": name, "how": "top_k", "budget": top}}]
    settings = {"method": "transformer", "model": model, "pooling": "weighted_mean", "max_tokens": 256, "cache": str(scratch / "vectors")}
    return [{"guide_similarity": {"each": True, "embed": settings}}, {"cover": {"how": "round_robin", "budget": top}}]


if __name__ == "__main__":
    main()
