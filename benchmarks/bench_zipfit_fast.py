"""Measure zipfit_fast beside exact ZIP-FIT: how alike the scores rank, what each chooses, what the judge says, how fast.

    python benchmarks/bench_zipfit_fast.py --pool DIR --targets DIR [--json OUT] [--svg OUT]

--targets holds NAME_guide.jsonl and NAME_test.jsonl. Speeds are MB of text per second of CPU, one thread, the best of five,
for 82 and for 1,000 targets taken from one file of tests, over 6,000 documents. Candidates are measured on 4,000 documents, 2,000 of them fitted to, each
with the same terms of size beside it. --svg draws the score over the length (needs matplotlib).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

import curate
from curate import deflate, ridge
from curate.scorers.zipfit_fast import rank_correlation
from curate.zipfit_profile import Guide, features, profiles

GZIP = deflate.Compressor("gzip", 6)
GUIDES = ("humaneval", "proofnet", "gsm8k")
TOPS = (0.01, 0.05, 0.1)
#: Documents that are chosen for the judge: 1 % of the pool or so.
CHOSEN = 700


def read(file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in file.open()]


def overlap(a: np.ndarray, b: np.ndarray, share: float) -> float:
    many = int(len(a) * share)
    return len(set(np.argsort(-a)[:many]) & set(np.argsort(-b)[:many])) / many


def best(work: Callable[[], object]) -> float:
    found = []
    for _ in range(5):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


# ------------------------------------------------------------------ candidates


def cross_parse(text: bytes, targets: bytes) -> float:
    """Bytes over phrases of a greedy parse into longest substrings of the targets (Ziv and Merhav 1993)."""
    at = phrases = 0
    while at < len(text):
        length = 1
        while at + length <= len(text) and text[at : at + length] in targets:
            length += 1
        at += max(1, length - 1)
        phrases += 1
    return len(text) - phrases


def primed(text: bytes, dictionary: bytes) -> float:
    """Bytes that deflate saves where it has read the end of the targets first."""
    with_it = zlib.compressobj(6, zdict=dictionary)
    return len(zlib.compress(text, 6)) - len(with_it.compress(text) + with_it.flush())


def candidates(texts: list[str], targets: list[str], exact: np.ndarray) -> dict[str, Any]:
    """Rank correlation with the exact scores of the second half, fitted to the first."""
    raw, joined = [t.encode() for t in texts], "".join(targets).encode()
    guide = Guide(pa.array(targets, pa.large_string()), GZIP)
    found = profiles(pa.array(texts, pa.large_string()), [guide], GZIP)
    own = found["guides"][:, 0]
    near, size, compressed = own["near"].sum(axis=1), np.log(found["bytes"] + 1.0), found["compressed"]
    sizes = [near * f for f in (np.ones(len(near)), size, size**2, compressed, np.log(compressed))]
    saved = {
        "size alone": [],
        "cross-parse": [near * np.array([cross_parse(t, joined) for t in raw])],
        "primed deflate": [near * np.array([primed(t, joined[-32_768:]) for t in raw])],
        "grams of 4 and 8": [own["four"], own["eight"]],
    }
    half = len(texts) // 2
    result = {}
    for name, columns in saved.items():
        x = np.column_stack([*sizes, *(c * f for c in columns for f in (np.ones(len(near)), size, size**2))])
        result[name] = round(rank_correlation(ridge.fit(x[:half], exact[:half]).predict(x[half:]), exact[half:]), 4)
    x = features(found, 0)
    result["zipfit_fast, nothing rescored"] = round(rank_correlation(ridge.fit(x[:half], exact[:half]).predict(x[half:]), exact[half:]), 4)
    return result


# ------------------------------------------------------------------ one guide


def judged(recipe: dict[str, Any], by: str, folder: Path) -> dict[str, Any]:
    stages = [*recipe["stages"], {"select": {"by": by, "how": "top_k", "budget": CHOSEN}}]
    item = curate.compare({**recipe, "stages": stages}, run=folder).targets[0]
    verdict = item.verdict
    return {
        "bits_per_byte": round(verdict.selection_bits_per_byte, 4), "random_bits_per_byte": round(verdict.random_bits_per_byte, 4),
        "difference": round(verdict.difference, 4), "low": round(verdict.low, 4), "high": round(verdict.high, 4), "verdict": verdict.word,
    }  # fmt: skip


def one(pool: Path, targets: Path, name: str, scratch: Path) -> dict[str, Any]:
    guide, test = (targets / f"{name}_{part}.jsonl" for part in ("guide", "test"))
    recipe: dict[str, Any] = {
        "name": name, "corpus": {"paths": [str(pool.resolve())], "id": "id"}, "seed": 7,
        "targets": {name: {"guide": [str(guide.resolve())], "test": [str(test.resolve())]}},
        "stages": [{"dedup_exact": {}}, {"zipfit": {}}, {"zipfit_fast": {}}],
    }  # fmt: skip
    folder = scratch / name
    by = {"zipfit": judged(recipe, "zipfit", folder), "zipfit_fast": judged(recipe, "zipfit_fast", folder)}
    for words, settings in (("rescore: null", {"rescore": None}), ("length_correction: residual", {"length_correction": "residual"})):
        alone = {**recipe, "stages": [{"dedup_exact": {}}, {"zipfit_fast": settings}]}
        by[f"zipfit_fast, {words}"] = judged(alone, "zipfit_fast", scratch / f"{name}-{len(by)}")
    docs = curate.open_run(folder).arrow(
        "SELECT curate_bytes, zipfit, zipfit_fast, zipfit_fast_exact FROM docs WHERE zipfit IS NOT NULL ORDER BY doc"
    )
    exact, fast, size = (docs[n].to_numpy() for n in ("zipfit", "zipfit_fast", "curate_bytes"))
    fitted = ~docs["zipfit_fast_exact"].to_numpy()
    texts = [t for t in ds.dataset(pool).to_table(columns=["text"])["text"].to_pylist() if t]
    drawn = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:4000]]
    guides = read(guide)
    scores = deflate.similarity(pa.array(drawn, pa.large_string()), pa.array(guides), GZIP)
    tenths = np.array_split(np.argsort(size, kind="stable"), 10)
    return {
        "documents": len(exact), "targets": len(guides), "mean_target_bytes": round(sum(len(g.encode()) for g in guides) / len(guides)),
        "rank_correlation": round(rank_correlation(exact, fast), 4),
        "rank_correlation_of_fitted": round(rank_correlation(exact[fitted], fast[fitted]), 4),
        "overlap": {f"{share:.0%}": round(overlap(exact, fast, share), 4) for share in TOPS},
        "judge": by, "candidates": candidates(drawn, guides, scores),
        "by_length": {
            "bytes": [round(float(size[t].mean())) for t in tenths],
            "scores": [[round(float(v), 4) for v in np.quantile(exact[t], (0.1, 0.5, 0.9))] for t in tenths],
        },
    }  # fmt: skip


def speeds(pool: Path, targets: Path) -> dict[str, Any]:
    texts = [t for t in ds.dataset(pool).to_table(columns=["text"])["text"].to_pylist() if t]
    drawn = pa.array([texts[i] for i in np.random.default_rng(1).permutation(len(texts))[:6000]], pa.large_string())
    mb = sum(len(t.as_py().encode()) for t in drawn) / 1e6
    many = read(targets / "gsm8k_test.jsonl")[:1000]
    result: dict[str, Any] = {"mb": round(mb, 2)}
    for guide in (many[:82], many):
        index = Guide(pa.array(guide, pa.large_string()), GZIP)
        seconds = best(lambda index=index: profiles(drawn, [index], GZIP))  # type: ignore[misc]
        found = profiles(drawn, [index], GZIP)
        scores = deflate.similarity(drawn.slice(0, 500), pa.array(guide[:82]), GZIP)
        fit = ridge.fit(features(found[:500], 0), scores)
        fitted = best(lambda found=found, fit=fit: [fit.predict(features(found[i : i + 2048], 0)) for i in range(0, len(found), 2048)])  # type: ignore[misc]
        result[f"{len(guide)}_targets"] = {
            "profile_mb_per_s": round(mb / seconds, 1), "predict_mb_per_s": round(mb / fitted, 1), "together_mb_per_s": round(mb / (seconds + fitted), 1),
        }  # fmt: skip
    some = drawn.slice(0, 500)
    seconds = best(lambda: deflate.similarity(some, pa.array(many[:82]), GZIP))
    result["exact_82_targets_mb_per_s"] = round(sum(len(t.as_py().encode()) for t in some) / 1e6 / seconds, 2)
    return result


def draw(result: dict[str, Any], out: Path) -> None:
    """The score over the length: median, and the middle 80 %, of each tenth of the pool."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "curate", "svg.fonttype": "none"})
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for name, row in result["guides"].items():
        x, low, middle, high = row["by_length"]["bytes"], *zip(*row["by_length"]["scores"], strict=True)
        (line,) = axes.plot(x, middle, marker="o", markersize=3, label=f"{name}, targets of {row['mean_target_bytes']} bytes")
        axes.fill_between(x, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    axes.set_xscale("log")
    axes.set_xlabel("mean bytes of a tenth of the pool, by length")
    axes.set_ylabel("zipfit")
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--pool", type=Path, required=True)
    words.add_argument("--targets", type=Path, required=True)
    words.add_argument("--json", type=Path)
    words.add_argument("--svg", type=Path)
    given = words.parse_args()
    result: dict[str, Any] = {
        "what": f"zipfit_fast beside zipfit on {given.pool.name}; the judge on the best {CHOSEN} documents", **measure.about(),
        "speed": speeds(given.pool, given.targets), "guides": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        for name in GUIDES:
            result["guides"][name] = one(given.pool, given.targets, name, Path(scratch))
    report = json.dumps(result, indent=1)
    print(report)
    if given.json:
        given.json.write_text(report + "\n", "utf-8")
    if given.svg:
        draw(result, given.svg)


if __name__ == "__main__":
    main()
