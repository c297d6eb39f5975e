"""The published rules' counts, slow and obvious: the twin of native/textrules.c."""

from __future__ import annotations

import re
from collections import Counter

from twins import UNSPACED

#: Of the characters that the tests draw, those that end a sentence, and those that close a quotation.
TERMINAL, QUOTES = set(".!?。！؟।"), set("\"'’”」")
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
    return len(" ".join(gram)) * times


def repeated(words: list[str]) -> int:
    """The largest n of 2..10 for which an n-gram stands twice, 0 if none; of n from 5 without overlap."""
    found = 0
    for n in range(2, 11):
        if any(times > 1 for times in Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)).values()) if n < 5 else again(words, n):
            found = n
    return found


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
        "quoted": sum(line[-1] in QUOTES for line in filled),
        "short": sum(len(line) <= short_chars for line in filled),
        "dup_lines": lines_again,
        "dup_line_chars": line_chars,
        "paragraphs": len(paragraphs),
        "dup_paragraphs": paragraphs_again,
        "dup_paragraph_chars": paragraph_chars,
        "repeated": repeated(words),
        **{f"top_{n}": top(words, n) for n in (2, 3, 4)},
        **{f"dup_{n}": again(words, n) for n in range(5, 11)},
    }


# -- rules for lines: the twins of native/linerules.c and native/refinedlines.c

#: Of the characters that the tests draw, those that end a sentence, and what may stand behind one.
ENDS, CLOSERS = set(".!?。！؟।"), set("\"'’”」)]")
ABBREVIATIONS = {"mr", "mrs", "ms", "dr", "prof", "st", "vs", "etc", "jr", "sr", "inc", "ltd", "co"}
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[[0-9]*\]|\[edit\]|\[citation needed\]")


def words_in(text: str) -> list[str]:
    return UNSPACED.sub(r" \g<0> ", text).split()


def ascii_lower(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


def lines_in(text: str) -> list[str]:
    """Lines with their line feeds; the last may have none."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def sentences(line: str) -> int:
    found, open_, at = 0, False, 0
    while at < len(line):
        char = line[at]
        at += 1
        if char not in ENDS:
            open_ = open_ or not char.isspace()
            continue
        mark = at - 1
        while at < len(line) and line[at] in ENDS | CLOSERS:
            at += 1
        ends = at == len(line) or line[at].isspace() or unspaced(char)
        word = re.search(r"[^\s.(\u0080-\U0010ffff]*\Z", line[:mark])[0]  # type: ignore[index]
        title = char == "." and at == mark + 1 and at < len(line) and (re.fullmatch("[a-zA-Z]", word) or ascii_lower(word) in ABBREVIATIONS)
        found += bool(ends and not title)
        open_ = not (ends and not title)
    return found + open_


def c4(text: str, *, min_words: int, max_word_chars: int, end_marks: bool, javascript: bool, policy: bool, citations: bool) -> tuple[dict[str, int], str]:
    """Counts as curate.linerules names them, and the text that is left."""
    n = dict.fromkeys(("lines", "long_word", "no_end_mark", "few_words", "javascript", "policy", "lorem_ipsum", "curly_bracket", "citations", "sentences"), 0)
    kept = []
    for whole in lines_in(text):
        line = whole.strip()
        if not line:
            kept += [whole] if not end_marks and not min_words else []
            continue
        n["lines"] += 1
        if max_word_chars and any(len(w) > max_word_chars for w in words_in(line)):
            n["long_word"] += 1
            continue
        cited = len(CITATION.findall(line)) if citations else 0
        line = CITATION.sub("", line) if citations else line
        small = ascii_lower(line)
        if end_marks and (line[-1:] not in ENDS | {'"'} or not line or line.endswith("...")):
            n["no_end_mark"] += 1
            continue
        if len(words_in(line)) < min_words:
            n["few_words"] += 1
            continue
        n["lorem_ipsum"] += "lorem ipsum" in small
        if javascript and "javascript" in small:
            n["javascript"] += 1
            continue
        n["curly_bracket"] += "{" in line
        if policy and any(p in small for p in POLICIES):
            n["policy"] += 1
            continue
        n["citations"] += cited
        n["sentences"] += sentences(line)
        kept.append(CITATION.sub("", whole) if citations else whole)
    return n, "".join(kept)


THINGS = "like|share|comment|retweet|repost|quote|bookmark|upvote|downvote|download|view|follower"
COUNTER = re.compile(rf"\W*[0-9][0-9,.]*[kKmMbB]?\s+(?i:{THINGS})[sS]?\W*")


def without_phrases(line: str) -> str:
    """A line without the phrases of menus; the same line where it has none."""
    small = ascii_lower(line)
    cut = []
    if small.startswith("sign-in"):
        cut.append((0, 8 if line[7:8].isspace() else 7))
    at = cut[0][1] if cut else 0
    while (at := small.find("items in cart", at)) >= 0 and len(cut) < 4:
        free = cut[-1][1] if cut else 0
        cut.append((at - (at - 1 >= free and line[at - 1].isspace()), at + 13))
        at += 13
    free = cut[-1][1] if cut else 0
    for phrase in ("read more...", "read more…"):
        at = len(line) - len(phrase)
        if at >= free and small.endswith(phrase):
            cut.append((at - (at - 1 >= free and line[at - 1].isspace()), len(line)))
            break
    for start, stop in reversed(cut):
        line = line[:start] + line[stop:]
    return line


def refined(text: str, *, max_uppercase: float, min_words: int, max_edit_words: int, numeric: bool, counters: bool) -> tuple[dict[str, int], str]:
    n = dict.fromkeys(("lines", "uppercase", "numeric", "counters", "few_words", "edited", "words", "words_cut"), 0)
    kept = []
    for whole in lines_in(text):
        line = whole.removesuffix("\n")
        words = len(words_in(line))
        n["words"] += words
        n["lines"] += words > 0
        rule = None
        if words == 0:
            kept.append(whole)
            continue
        if sum(c.lower() != c for c in line) > max_uppercase * len(line):
            rule = "uppercase"
        elif numeric and re.fullmatch(r"[0-9]*", "".join(line.split())):
            rule = "numeric"
        elif counters and COUNTER.fullmatch(line):
            rule = "counters"
        elif words < min_words:
            rule = "few_words"
        if rule:
            n[rule] += 1
            n["words_cut"] += words
            continue
        left = without_phrases(line) if words <= max_edit_words else line
        if left != line:
            n["edited"] += 1
            n["words_cut"] += words - len(words_in(left))
        kept.append(whole if left == line else left + whole[len(line) :] if left.strip() else "")
    return n, "".join(kept)


# -- rules for code: the twin of native/codelines.c

STRINGS = {"python": r"""(?:(?:\"\"\"(?:\\.|[^\\])*?(?:\"\"\"|\\?\Z))|(?:'''(?:\\.|[^\\])*?(?:'''|\\?\Z)))|"(?!"")(?:\\.|[^"\\\n])*(?:"|(?=\n)|\\?\Z)|'(?!'')(?:\\.|[^'\\\n])*(?:'|(?=\n)|\\?\Z)""", "c": r""""(?:\\.|[^"\\\n])*(?:"|(?=\n)|\\?\Z)|'(?:\\.|[^'\\\n])*(?:'|(?=\n)|\\?\Z)"""}
COMMENTS = {"python": r"#[^\n]*", "c": r"//[^\n]*|/\*.*?(?:\*/|\Z)"}


def comment_chars(source: str, language: str) -> int:
    """Characters of comments in Python or C; a Python string that is a statement of its own is one."""
    chars = depth = at = 0
    fresh = True
    token = re.compile(f"(?P<comment>{COMMENTS[language]})|(?P<string>{STRINGS[language]})", re.DOTALL)
    while at < len(source):
        found = token.match(source, at)
        if found:
            counts = found["comment"] is not None or (language == "python" and fresh and depth == 0)
            chars += len(found[0]) if counts else 0
            fresh = fresh and found["comment"] is not None
            at = found.end()
            continue
        char = source[at]
        depth = depth + 1 if char in "([{" else max(0, depth - 1) if char in ")]}" else depth
        prefix = fresh and char in "rRuU" and source[at + 1 : at + 2] in ("'", '"')
        fresh = char == "\n" or (fresh and (char in "\t\x0b\x0c\r \x1c\x1d\x1e\x1f" or prefix))
        at += 1
    return chars


def code(source: str, head_lines: int, language: str | None) -> dict[str, int]:
    lines = source.split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    return {
        "chars": len(source), "lines": len(lines), "max_line_chars": max(map(len, lines), default=0), "line_chars": sum(map(len, lines)),
        "alnum": sum(map(str.isalnum, source)), "comment_chars": comment_chars(source, language) if language else 0,
        "head_bytes": len("".join(re.findall(r"[^\n]*\n|[^\n]+", source)[:head_lines]).encode()),
    }  # fmt: skip
