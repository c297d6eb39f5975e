"""Measure the published rules: each stage alone, together with and without a shared scan, beside merely reading the text; and
datatrove's filters on some of the same documents, verdict by verdict.

    python benchmarks/bench_rules.py --pool FOLDER_OF_PARQUET [--datatrove PYTHON] [--documents 2000] [--json benchmarks/results/rules.json]

MB are 10^6 bytes of UTF-8; times are CPU seconds of one thread, the median of five (datatrove: one). A stage's time is that of its
measures and its verdict. `every` shows every stage every document; `cascade` shows it what the stages before it kept, as a run does.
--datatrove is a Python that has datatrove 0.10.1 and spacy. Verdicts are held against curate's at datatrove's settings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate import registry, spans, textrules
from curate.stage import TEXT, Context

ROUNDS = 5
#: FineWeb's order, with RefinedWeb's lines behind it.
ALL = ("gopher_repetition", "gopher_quality", "c4", "fineweb_quality", "refinedweb_lines")
FOUR = ALL[:4]
UNSPACED = re.compile("[\u0e00-\u109f\u1780-\u17ff\u3000-\u312f\u31a0-\u9fff\uf900-\ufaff\uff00-\uff9f\U00020000-\U0003ffff]")
#: datatrove's own defaults, where they are not the authors'.
AS_DATATROVE: dict[str, dict[str, Any]] = {"c4": {"min_words": 3, "min_sentences": 5}}


def made(name: str, **settings: Any) -> Any:
    """A stage with its settings."""
    cls: Any = registry.lookup(name)
    return cls(cls.Params(**settings), Context(name))


def read(files: list[Path]) -> list[pa.Array]:
    """The texts in batches of about 4 MB, as a pass reads them."""
    batches = []
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(3500, columns=["text"], use_threads=False):
            batches.append(pc.fill_null(batch.column(0).cast(pa.string()), ""))
    return batches


def cpu(work: Callable[[], Any]) -> float:
    """CPU seconds, the median of the rounds."""
    spent = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return statistics.median(spent)


def judged(stage: Any, measures: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
    """Verdict and reason, from the columns that the stage's verdict reads."""
    names = [name.removeprefix(f"{stage.name}_") for name in stage.judge_reads()]
    return stage.judge(pa.record_batch([measures.column(name) for name in names], names=[str(i) for i in range(len(names))]))  # type: ignore[no-any-return]


def through(text: pa.Array, stages: list[Any], *, share: bool, drop: bool) -> None:
    """One batch through all stages, as a pass takes it."""
    alive = np.ones(len(text), bool)
    shared = textrules.Shared(len(text))
    for at, stage in enumerate(stages):
        scans = [s.rule_scan() for s in stages[at:] if hasattr(s, "rule_scan")]
        batch = pa.record_batch([text if alive.all() else text.filter(pa.array(alive))], names=[TEXT])
        if share and hasattr(stage, "rule_scan"):
            batch = batch.append_column(textrules.FOUND, shared.of(text, alive, scans))
        out = stage.apply(None, batch)
        if spans.FIELD in out.schema.names:
            changes = out.column(spans.FIELD)
            if not alive.all():
                place = np.cumsum(alive) - 1
                changes = changes.take(pa.array(place, mask=~alive))
            spans.check(stage.name, text, changes)
            text = spans.applied(text, changes)
            shared.forget(pc.fill_null(pc.greater(pc.list_value_length(changes), 0), False).to_numpy(zero_copy_only=False))
        keep, _ = judged(stage, out)
        if drop:
            alive[alive] = np.asarray(keep.to_numpy(zero_copy_only=False))


def speeds(files: list[Path]) -> dict[str, Any]:
    """MB per CPU second."""
    batches = read(files)
    size = sum(sum(len(t) for t in batch.cast(pa.binary()).to_pylist()) for batch in batches) / 1e6

    def per(work: Callable[[], Any]) -> float:
        return round(size / cpu(work), 1)

    def all_of(names: tuple[str, ...], **how: bool) -> Callable[[], None]:
        stages = [made(name) for name in names]
        return lambda: [through(batch, stages, **how) for batch in batches] and None

    return {
        "pool_mb": size, "documents": sum(map(len, batches)), "reading": per(lambda: read(files)),
        "alone": {name: per(all_of((name,), share=False, drop=False)) for name in (*ALL, "code_rules")},
        "together": {
            "stages": list(ALL), "every_shared": per(all_of(ALL, share=True, drop=False)), "every_apart": per(all_of(ALL, share=False, drop=False)),
            "cascade_shared": per(all_of(ALL, share=True, drop=True)), "cascade_apart": per(all_of(ALL, share=False, drop=True)),
        },
        "as_datatroves_four": {"stages": list(FOUR), "every_shared": per(all_of(FOUR, share=True, drop=False)), "cascade_shared": per(all_of(FOUR, share=True, drop=True))},
    }  # fmt: skip


def own_verdicts(texts: pa.Array, name: str, **more: Any) -> tuple[list[str | None], list[str]]:
    """The reason of each text, and a hash of what is left of it, as datatrove would join its lines."""
    stage = made(name, **{**AS_DATATROVE.get(name, {}), **more})
    out = stage.apply(None, pa.record_batch([texts], names=[TEXT]))
    left = spans.applied(texts, out.column(spans.FIELD)) if spans.FIELD in out.schema.names else texts
    joined = ("\n".join(line.strip() for line in t.splitlines()).strip() for t in left.to_pylist())
    return judged(stage, out)[1].to_pylist(), [hashlib.blake2b(t.encode(), digest_size=8).hexdigest() for t in joined]


def why_c4(texts: list[str], theirs: dict[str, Any], own: list[str | None]) -> Counter[str]:
    """What the two C4 filters disagree about, in classes: the first that holds."""
    _, lines = own_verdicts(pa.array(texts), "c4", min_sentences=None)
    found: Counter[str] = Counter()
    for text, mine, their, same in zip(texts, own, theirs["own"], map(str.__eq__, lines, theirs["lines_left"]), strict=True):
        if (mine is None) == (their is None):
            continue
        if same:
            found["the same lines, another count of sentences"] += 1
        elif any(ord(c) > 0x7F and c in "。！？؟।።։" for c in text):
            found["an end mark of another script"] += 1
        elif any(line.rstrip().endswith("'") for line in text.splitlines()):
            found["a line that ends in '"] += 1
        else:
            found["other lines are left"] += 1
    return found


def why_other(text: str, mine: str | None, their: str | None, word: str | None) -> str:
    """What another filter and ours disagree about: the first class that holds."""
    if (mine is None) == (word is None):
        return "words: datatrove splits punctuation off"
    if UNSPACED.search(text):
        return "a script without spaces"
    if any(line and not line.strip() for line in text.split("\n")):
        return "lines of white space alone"
    return f"{mine or 'kept'} / {their or 'kept'}"


def compared(files: list[Path], python: str, documents: int) -> dict[str, Any]:
    """Verdicts of datatrove's filters and of ours on every n-th document."""
    script = Path(__file__).parent / "datatrove_rules.py"
    done = subprocess.run([python, str(script), str(documents), *map(str, files)], capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout)
    texts = [t or "" for file in files for t in pq.read_table(file, columns=["text"])["text"].to_pylist()]
    texts = texts[:: max(1, len(texts) // documents)][:documents]
    size = theirs["bytes"] / 1e6
    result: dict[str, Any] = {"documents": len(texts), "mb": size, "mb_per_second": round(size / sum(theirs[name]["cpu_s"] for name in FOUR), 3), "filters": {}}
    for name in FOUR:
        own, _ = own_verdicts(pa.array(texts), name)
        pairs = list(zip(own, theirs[name]["own"], strict=True))
        words = theirs[name].get("words", [None] * len(texts))
        differ = [(text, mine, their, word) for text, (mine, their), word in zip(texts, pairs, words, strict=True) if (mine is None) != (their is None)]
        classes = why_c4(texts, theirs[name], own) if name == "c4" else Counter(why_other(*one) for one in differ)
        result["filters"][name] = {
            "mb_per_second": round(size / theirs[name]["cpu_s"], 3),
            "both_keep": sum(mine is None and their is None for mine, their in pairs), "both_drop": sum(mine is not None and their is not None for mine, their in pairs),
            "only_curate_drops": sum(mine is not None and their is None for mine, their in pairs), "only_datatrove_drops": sum(mine is None and their is not None for mine, their in pairs),
            "reasons_of_disagreement": dict(Counter(f"{mine or 'kept'} / {their or 'kept'}" for _, mine, their, _ in differ).most_common()),
            "classes": dict(classes.most_common()),
        }  # fmt: skip
    stages = [made(name, **AS_DATATROVE.get(name, {})) for name in FOUR]
    column = pa.array(texts)
    result["curate_mb_per_second"] = round(size / cpu(lambda: through(column, stages, share=True, drop=False)), 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--datatrove", metavar="PYTHON")
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pa.set_cpu_count(1)
    files = sorted(options.pool.glob("*.parquet"))
    result: dict[str, Any] = {"about": measure.about(), **speeds(files)}
    if options.datatrove:
        result["datatrove"] = compared(files, options.datatrove, options.documents)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
