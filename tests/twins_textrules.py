"""The published rules' counts, slow and obvious: the twin of native/textrules.c."""

from __future__ import annotations

import re
from collections import Counter

from twins import UNSPACED

#: Of the characters that the tests draw, those that end a sentence or close a quotation.
TERMINAL = set(".!?\"'。！؟।’”」")
STOPS = {"the", "be", "to", "of", "and", "that", "have", "with"}


def unspaced(word: str) -> bool:
    return UNSPACED.fullmatch(word) is not None


def letter(char: str) -> bool:
    return char.isalpha() if char.isascii() else char.isalnum()


def duplicates(units: list[str]) -> tuple[int, int]:
    met: set[str] = set()
    again = []
    for unit in units:
        if unit in met:
            again.append(unit)
        met.add(unit)
    return len(again), sum(map(len, again))


def top(words: list[str], n: int) -> int:
    grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    gram, times = max(grams.items(), key=lambda item: item[1], default=((), 0))  # the first of the most frequent
    return len(" ".join(gram)) * times if times > 1 else 0


def again(words: list[str], n: int) -> int:
    met: set[tuple[str, ...]] = set()
    at = chars = 0
    while at <= len(words) - n:
        gram = tuple(words[at : at + n])
        if gram in met:
            chars += len("".join(gram))
            at += n
        else:
            met.add(gram)
            at += 1
    return chars


def counts(text: str, short_chars: int = 30) -> dict[str, int]:
    """Every column of curate.textrules for one text."""
    words = UNSPACED.sub(r" \g<0> ", text).split()
    lines = text.split("\n")[: None if text and not text.endswith("\n") else -1]
    filled = [line for line in lines if line.strip()]
    # paragraphs by lines, so that \r or another break that is no line feed ends none
    blocks = re.split("\x00+", "\n".join(line if line.strip() else "\x00" for line in lines).replace("\n\x00", "\x00").replace("\x00\n", "\x00"))
    paragraphs = [block for block in blocks if block]
    proper = [w for w in words if any(c.isalnum() for c in w)]
    spaced = [w for w in proper if not unspaced(w)]
    lines_again, line_chars = duplicates(filled)
    paragraphs_again, paragraph_chars = duplicates(paragraphs)
    return {
        "chars": len(text),
        "newlines": text.count("\n"),
        "words": len(words),
        "unspaced": sum(map(unspaced, words)),
        "proper": len(proper),
        "spaced": len(spaced),
        "spaced_chars": sum(map(len, spaced)),
        "alpha": sum(any(map(letter, w)) for w in words),
        "hashes": text.count("#"),
        "ellipses": text.count("...") + text.count("…"),
        "stops": len(STOPS & set(words)),
        "lines": len(lines),
        "bullets": sum(line.lstrip().startswith(("-", "•")) for line in lines),
        "trailing": sum(line.rstrip().endswith(("...", "…")) for line in lines),
        "filled": len(filled),
        "punctuated": sum(line[-1] in TERMINAL for line in filled),
        "short": sum(len(line) <= short_chars for line in filled),
        "dup_lines": lines_again,
        "dup_line_chars": line_chars,
        "paragraphs": len(paragraphs),
        "dup_paragraphs": paragraphs_again,
        "dup_paragraph_chars": paragraph_chars,
        **{f"top_{n}": top(words, n) for n in (2, 3, 4)},
        **{f"dup_{n}": again(words, n) for n in range(5, 11)},
    }
