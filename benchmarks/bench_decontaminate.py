"""Decontamination against brute force in plain Python, what of planted items is found, and MB per CPU second.

    python benchmarks/bench_decontaminate.py --pool FOLDER_OF_PARQUET --sets FILE.jsonl ... [--json benchmarks/results/decontaminate.json]

The sets have `prompt` and `response`. Brute force holds tuples of words in dictionaries, no hashes, over 5,000 documents
of which one in five holds an item. MB are 10^6 bytes of UTF-8; times are CPU seconds of one thread, the median of five.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from twins_contamination import checkable, grams, words

from curate.contamination import Found, Index

ROUNDS, DOCUMENTS, FEW, MANY, FLAG, DROP = 5, 5_000, 5, 13, 0.15, 0.5
Pairs = dict[tuple[int, int], float]


def changed(item: str, draw: random.Random, filler: list[str]) -> str:
    """One word in ten is another word of the pool."""
    parts = item.split(" ")
    for place in draw.sample(range(len(parts)), round(0.1 * len(parts))):
        parts[place] = draw.choice(filler)
    return " ".join(parts)


def reordered(item: str, draw: random.Random, filler: list[str]) -> str:
    sentences = [s for s in re.split(r"(?<=[.!?])\s+|\n+", item) if s]
    draw.shuffle(sentences)
    return " ".join(sentences)


def inside(item: str, draw: random.Random, filler: list[str]) -> str:
    """In the middle of ten times as many words, a stretch of the pool's text."""
    size = round(4.5 * len(item.split()))
    at = draw.randrange(max(1, len(filler) - 2 * size))
    return " ".join([*filler[at : at + size], item, *filler[at + size : at + 2 * size]])


KINDS: dict[str, Callable[[str, random.Random, list[str]], str]] = {
    "verbatim": lambda item, draw, filler: item,
    "re-cased": lambda item, draw, filler: item.upper(),
    "re-punctuated": lambda item, draw, filler: re.sub(r"[.,;:!?]", " -- ", item).replace(" ", ",  "),
    "10 % of words changed": changed,
    "sentences reordered": reordered,
    "inside ten times as long": inside,
}


def ours(documents: list[str], items: list[str]) -> tuple[Index, Found]:
    column = pa.array(documents, pa.large_string())
    index = Index(pa.array(items), few=FEW, many=MANY)
    return index, index.weigh(index.count(column), len(documents), flag=FLAG).match(column)


def pairs_of(found: Found) -> Pairs:
    shares = np.maximum(found.overlap, found.containment)
    return {(int(d), int(i)): float(s) for d, i, s in zip(found.row, found.item, shares, strict=True)}


def brute(documents: list[str], items: list[str]) -> Pairs:
    """Every pair above the flag, or of a shared long n-gram, and its share."""
    mine = [words(item) for item in items]
    owners: dict[tuple[str, ...], list[int]] = defaultdict(list)
    held = {}
    for i, item in enumerate(items):
        if checkable(item, 5, 10):
            held[i] = grams(mine[i], FEW), grams(mine[i], MANY)
            for gram in held[i][0] | held[i][1]:
                owners[gram].append(i)
    pool = [words(document) for document in documents]
    known = [{gram for n in (FEW, MANY) for gram in grams(document, n) if gram in owners} for document in pool]
    counts = Counter(gram for grams_ in known for gram in grams_)

    def weight(some: set[tuple[str, ...]]) -> float:
        return sum(math.log(1 + len(pool) / (1 + counts[gram])) for gram in some)

    found: Pairs = {}
    for d, mine_grams in enumerate(known):
        for i in {i for gram in mine_grams for i in owners[gram]}:
            few, many = held[i]
            containment = weight(few & mine_grams) / weight(few)
            overlap = weight(many & mine_grams) / weight(many) if many else float(tuple(mine[i]) in grams(pool[d], len(mine[i])))
            if containment >= FLAG or (many and overlap > 0):
                found[d, i] = max(containment, overlap)
    return found


def against_brute_force(texts: list[str], items: list[str], filler: list[str]) -> dict[str, Any]:
    draw = random.Random(1)
    documents = draw.sample(texts, DOCUMENTS)
    for place in range(0, DOCUMENTS, 5):
        documents[place] = draw.choice(list(KINDS.values()))(draw.choice(items), draw, filler)
    expected, found = brute(documents, items), pairs_of(ours(documents, items)[1])
    both = expected.keys() & found.keys()
    return {
        "documents": DOCUMENTS, "pairs": len(expected), "recall": len(both) / len(expected), "pairs_that_are_not_real": len(found.keys() - expected.keys()),
        "largest_difference_of_shares": max(abs(expected[pair] - found[pair]) for pair in both),
    }  # fmt: skip


def planted(texts: list[str], items: list[str], filler: list[str]) -> dict[str, Any]:
    """By kind: items planted, named in their document, dropped if their words are enough or the document is the item."""
    draw = random.Random(2)
    chosen = [i for i, item in enumerate(items) if checkable(item, 5, 10)]
    table = {}
    for kind, plant in KINDS.items():
        documents = [plant(items[i], draw, filler) for i in chosen] + draw.sample(texts, 2_000)
        index, found = ours(documents, items)
        shares = pairs_of(found)
        exact = {(int(d), int(i)) for d, i in zip(found.row[found.exact], found.item[found.exact], strict=True)}
        named = sum((d, i) in shares for d, i in enumerate(chosen))
        dropped = sum((d, i) in exact or (shares.get((d, i), 0) >= DROP and int(index.sizes[i]) >= MANY) for d, i in enumerate(chosen))
        missed = [items[i] for d, i in enumerate(chosen) if (d, i) not in shares]
        table[kind] = {"planted": len(chosen), "found": named, "dropped": dropped, "words_of_missed": sorted(len(words(item)) for item in missed)}
    return table


def speed(texts: list[str], items: list[str]) -> dict[str, Any]:
    column = pa.array(texts, pa.large_string())
    size = sum(len(text.encode()) for text in texts) / 1e6
    index = Index(pa.array(items), few=FEW, many=MANY)

    def seconds(work: Callable[[], Any]) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    count = statistics.median(seconds(lambda: index.count(column)) for _ in range(ROUNDS))
    weighed = index.weigh(index.count(column), len(texts), flag=FLAG)
    match = statistics.median(seconds(lambda: weighed.match(column)) for _ in range(ROUNDS))
    clean = pairs_of(weighed.match(column))
    return {
        "pool_mb": size, "documents": len(texts), "items": len(items), "ngrams": len(index.grams), "count_mb_per_cpu_second": size / count,
        "match_mb_per_cpu_second": size / match, "both_mb_per_cpu_second": size / (count + match), "pairs_in_the_pool_as_it_is": len(clean),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--sets", type=Path, nargs="+", required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    texts = [text for text in ds.dataset(options.pool).to_table(columns=["text"])["text"].to_pylist() if text]
    rows = [json.loads(line) for file in options.sets for line in file.read_text().splitlines()]
    questions, answers = ([row[side] for row in rows] for side in ("prompt", "response"))
    filler = " ".join(texts[:3_000]).split()
    result = {
        "about": measure.about(), "brute_force": against_brute_force(texts, questions, filler), "planted": planted(texts, questions, filler),
        **speed(texts, questions + answers),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
