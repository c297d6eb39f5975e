"""Evaluation items of made-up words, and documents that hold them in each way in which items get into pools."""

from __future__ import annotations

import random
from collections.abc import Callable

#: A vocabulary with a few common words and many rare ones, as languages have.
COMMON = ["the", "of", "and", "to", "in", "is", "that", "for", "it", "with"]
RARE = [a + b + c for a in ("ba", "ke", "mi", "to", "su", "ra") for b in ("lo", "ni", "ta", "ze", "vu") for c in ("r", "n", "s", "mel", "dok", "pish")]


def sentence(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(COMMON) if draw.random() < 0.4 else draw.choice(RARE) for _ in range(words)).capitalize() + "."


def text(draw: random.Random, sentences: int) -> str:
    return " ".join(sentence(draw, draw.randint(7, 14)) for _ in range(sentences))


def changed(item: str, draw: random.Random) -> str:
    """One word in ten is another one."""
    words = item.split(" ")
    for place in draw.sample(range(len(words)), round(0.1 * len(words))):
        words[place] = "zzz" + draw.choice(RARE)
    return " ".join(words)


def reordered(item: str, draw: random.Random) -> str:
    sentences = [s + "." for s in item.rstrip(".").split(". ")]
    return " ".join(sentences[1:] + sentences[:1])


def inside(item: str, draw: random.Random) -> str:
    """In the middle of a document ten times as long."""
    before, after = (sentence(draw, round(4.5 * len(item.split()))) for _ in range(2))
    return f"{before} {item} {after}"


#: How an item is planted: the kinds of the table.
KINDS: dict[str, Callable[[str, random.Random], str]] = {
    "verbatim": lambda item, draw: item,
    "re-cased": lambda item, draw: item.upper(),
    "re-punctuated": lambda item, draw: item.replace(".", " --!").replace(" ", ",  "),
    "10 % of words changed": changed,
    "sentences reordered": reordered,
    "inside ten times as long": inside,
}
