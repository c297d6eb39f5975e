"""datatrove's filters over the texts of parquet files, for bench_rules.py: run by a Python that has datatrove, not by curate's.

    PYTHON datatrove_rules.py ROWS FILE...   writes JSON on standard output: verdicts by filter, and CPU seconds

Every n-th document, so that all files are in it. `own` is datatrove as it is; `words` with words as curate has them (runs
without white space, characters of unspaced scripts alone): what then agrees was a matter of words. `lines_left`: a hash of what C4's rules for lines leave, its count of sentences aside.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
import time
from typing import Any

import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

FILTERS: dict[str, Any] = {
    "c4": C4QualityFilter,
    "gopher_quality": GopherQualityFilter,
    "gopher_repetition": GopherRepetitionFilter,
    "fineweb_quality": FineWebQualityFilter,
}
MODULES = {"gopher_quality": "gopher_quality_filter", "gopher_repetition": "gopher_repetition_filter", "fineweb_quality": "fineweb_quality_filter"}
UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\u3000-\u312f\u31a0-\ua4cf\ua980-\ua9ff\uaa60-\uaadf"
    "\uf900-\ufaff\uff00-\uff9f\U0001aff0-\U0001b16f\U00020000-\U0003ffff]"
)


def as_curate_splits(text: str, language: str) -> list[str]:
    return UNSPACED.sub(r" \g<0> ", text).split()


def judged(found: Any, texts: list[str]) -> tuple[list[str | None], list[str], float]:
    """The reason of each text, a hash of what is left of it, and CPU seconds."""
    reasons, left = [], []
    start = time.process_time()
    for text in texts:
        document = Document(text=text, id="")
        try:
            answer = found.filter(document)
        except ZeroDivisionError:  # a text without words
            answer = (False, "ZeroDivisionError")
        reasons.append(None if answer is True else answer[1])
        left.append(document.text)
    seconds = time.process_time() - start
    return reasons, [hashlib.blake2b(t.encode(), digest_size=8).hexdigest() for t in left], seconds


def main() -> None:
    rows, files = int(sys.argv[1]), sys.argv[2:]
    texts = [t or "" for file in files for t in pq.read_table(file, columns=["text"])["text"].to_pylist()]
    texts = texts[:: max(1, len(texts) // rows)][:rows]
    found: dict[str, Any] = {"documents": len(texts), "bytes": sum(len(t.encode()) for t in texts)}
    FILTERS["gopher_quality"]().filter(Document(text="Load the tokenizer. " * 20, id=""))
    FILTERS["c4"]().filter(Document(text="Load the tokenizer now. " * 20, id=""))
    for name, cls in FILTERS.items():
        reasons, left, seconds = judged(cls(), texts)
        found[name] = {"own": reasons, "left": left, "cpu_s": seconds}
    lines = judged(C4QualityFilter(min_num_sentences=-1), texts)
    found["c4"] |= {"without_sentences": lines[0], "lines_left": lines[1]}
    for name, module in MODULES.items():
        importlib.import_module(f"datatrove.pipeline.filters.{module}").split_into_words = as_curate_splits
        found[name]["words"] = judged(FILTERS[name](), texts)[0]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
