"""Measure the language kernel, with py3langid's own loop beside it on some of the same documents.

    python benchmarks/bench_langid.py [--pool FOLDER_OF_PARQUET] [--json benchmarks/results/langid.json]

Without --pool the text is the source of Python's standard library. MB are 10^6 bytes of UTF-8; times are CPU seconds of one
thread, the median of five (one for the library). Labels must agree before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import pyarrow as pa
import pyarrow.dataset as ds

from curate import langid

ROUNDS = 5


def read(pool: Path | None) -> list[str]:
    """All documents."""
    if pool is not None:
        return [text for text in ds.dataset(pool).to_table(columns=["text"])["text"].to_pylist() if text is not None]
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    return [file.read_text("utf-8", "ignore") for file in files if "site-packages" not in file.parts]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it gave."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def compare(texts: list[str]) -> dict[str, Any]:
    """Labels and scores against the library's; raises where a label differs."""
    from py3langid.langid import LanguageIdentifier

    reference = LanguageIdentifier.from_model_file("data/model.npz.xz", norm_probs=True)
    spent, wanted = seconds(lambda: [reference.classify(text) for text in texts])
    found = langid.identify(pa.array(texts, pa.large_string())).to_pylist()
    none = sum(own["language"] is None for own in found)
    wrong = [i for i, (own, (label, _)) in enumerate(zip(found, wanted, strict=True)) if own["language"] not in (None, label)]
    if wrong:
        raise SystemExit(f"{len(wrong)} labels differ, the first of {texts[wrong[0]][:80]!r}")
    furthest = max(abs(own["score"] - share) for own, (_, share) in zip(found, wanted, strict=True) if own["score"] is not None)
    size = sum(len(text.encode()) for text in texts)
    return {"documents": len(texts), "labels_that_differ": 0, "no_language_found": none, "largest_difference_of_scores": furthest, "library_mb_per_second": size / 1e6 / spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    texts = read(options.pool)
    column = pa.chunked_array([texts[i : i + 2000] for i in range(0, len(texts), 2000)], pa.large_string())
    size = sum(len(text.encode()) for text in texts)
    loading, _ = seconds(langid.model)
    agreement = compare(texts)
    whole = statistics.median(seconds(lambda: langid.identify(column))[0] for _ in range(ROUNDS))
    preparing = statistics.median(seconds(lambda: [langid.prepare(chunk) for chunk in column.chunks])[0] for _ in range(ROUNDS))
    result = {
        "about": measure.about(), "pool_mb": size / 1e6, "documents": len(texts), "mb_per_second": size / 1e6 / whole,
        "share_of_preparing": preparing / whole, "times_the_library": size / 1e6 / whole / agreement["library_mb_per_second"],
        "seconds_to_load_the_model": loading, "agreement": agreement,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
