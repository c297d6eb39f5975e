"""The largest clusters of near-duplicates that a run found, and what differs between their texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile

from curate.catalog import OpenRun
from curate.errors import ConfigError
from curate.frame import quote
from curate.stage import BYTES, IDENTITY

#: Tokens of each side, behind what both begin with, that are compared: difflib takes quadratic time.
COMPARED = 1500
#: Changes that are shown, tokens around each, characters of one side of a change.
CHANGES, AROUND, SHOWN = 8, 4, 160
# A word with the white space behind it; characters of the scripts of East and South-East Asia one by one. For reading
# only: what documents are compared by is native/tokens.h's business.
_TOKEN = re.compile(r"[\u0e00-\u109f\u1780-\u17ff\u3000-\u9fff\uf900-\uffef]\s*|[^\s\u0e00-\u109f\u1780-\u17ff\u3000-\u9fff\uf900-\uffef]+\s*")


@dataclass(frozen=True)
class Member:
    """A document of a cluster; `difference` is from the one that stays, None at that one."""

    identity: str
    file: str
    row: int
    bytes: int
    jaccard: float | None
    difference: str | None


@dataclass(frozen=True)
class Cluster:
    """A cluster: how many documents and bytes of text it has; `members` begins with the one that stays."""

    identity: str
    size: int
    bytes: int
    members: list[Member]


def largest(run: OpenRun, stage: str | None = None, *, top: int = 10, members: int = 4) -> list[Cluster]:
    """The `top` clusters with most documents, each with the one that stays and the `members` that are least like it.

    `stage` is the label of a stage that clusters; it may be left out where there is one. Least like first: there a
    threshold that is too low shows.
    """
    label = _label(run, stage)
    cluster, jaccard = quote(f"{label}_cluster"), quote(f"{label}_jaccard")
    keep = quote(f"{label}_keep")
    with run.connection() as con:
        found = con.execute(
            f"""SELECT {cluster}, count(*), sum({BYTES})::BIGINT FROM docs WHERE {cluster} IS NOT NULL GROUP BY 1
                ORDER BY 2 DESC, 3 DESC, 1 LIMIT {top}"""
        ).fetchall()
        rows = con.execute(
            f"""SELECT {cluster}, doc, {IDENTITY}, file, row, {BYTES}, {jaccard}, {keep} FROM docs WHERE {cluster} IN (SELECT unnest(?))
                QUALIFY row_number() OVER (PARTITION BY {cluster} ORDER BY {keep} DESC, {jaccard} NULLS LAST, {IDENTITY}, doc) <= {members + 1}
                ORDER BY {keep} DESC, {jaccard} NULLS LAST, {IDENTITY}, doc""",
            [[name for name, *_ in found]],
        ).fetchall()
    texts = run.texts([row[1] for row in rows]) if rows else {}
    clusters = []
    for name, size, total in found:
        own = [row[1:] for row in rows if row[0] == name]
        stays = texts[own[0][0]] or ""
        shown = [
            Member(identity, file, row, bytes_, index, None if kept else difference(stays, texts[doc] or ""))
            for doc, identity, file, row, bytes_, index, kept in own
        ]
        clusters.append(Cluster(name, size, total, shown))
    return clusters


def _label(run: OpenRun, stage: str | None) -> str:
    rows = run.arrow("SELECT label, columns FROM stages ORDER BY position").to_pylist()
    labels = [row["label"] for row in rows if {f"{row['label']}_cluster", f"{row['label']}_jaccard"} <= set(row["columns"])]
    if stage is not None and stage not in labels:
        known = f"those that do: {', '.join(labels)}" if labels else "this run has none that does; minhash is one"
        raise ConfigError(f"expected the label of a stage that makes clusters, got {stage!r}; {known}")
    if stage is None and len(labels) != 1:
        why = f"say which with --stage: {', '.join(labels)}" if labels else "its recipe needs a stage that does, such as minhash"
        raise ConfigError(f"expected one stage that makes clusters in {run.folder}, got {len(labels)}; {why}")
    return stage or labels[0]


def difference(left: str, right: str) -> str:
    """What to change to make `right` of `left`, as [-words that go-] and {+words that come+} with a few words around.

    Bounded: COMPARED tokens behind what both begin with and before what both end with, CHANGES changes. White space does
    not count.

    >>> difference("the cat sat on the mat", "the dog sat on the mat")
    'the [-cat-] {+dog+} sat on the mat'
    """
    a, b = _TOKEN.findall(left), _TOKEN.findall(right)
    plain_a, plain_b = [t.strip() for t in a], [t.strip() for t in b]
    begin = _common(plain_a, plain_b)
    end = min(_common(plain_a[::-1], plain_b[::-1]), min(len(a), len(b)) - begin)
    if begin == len(a) == len(b):
        return "no difference but in white space" if left != right else "the same text"
    middle_a, middle_b = plain_a[begin : len(a) - end], plain_b[begin : len(b) - end]
    matcher = SequenceMatcher(None, middle_a[:COMPARED], middle_b[:COMPARED], autojunk=False)
    changes = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    pieces: list[str] = []
    at = max(0, begin - AROUND)
    if at:
        pieces.append("...")
    for _, i, j, k, m in changes[:CHANGES]:
        before = begin + i
        if before - at > 2 * AROUND:
            pieces += [_joined(a[at : at + AROUND]), "...", _joined(a[before - AROUND : before])]
        else:
            pieces.append(_joined(a[at:before]))
        pieces += [f"[-{_joined(a[before : begin + j])}-]"] if j > i else []
        pieces += [f"{{+{_joined(b[begin + k : begin + m])}+}}"] if m > k else []
        at = begin + j
    pieces.append(_joined(a[at : at + AROUND]))
    if len(changes) > CHANGES:
        pieces.append(f"... and {len(changes) - CHANGES} more changes")
    elif at + AROUND < len(a):
        pieces.append("...")
    if max(len(middle_a), len(middle_b)) > COMPARED:
        pieces.append(f"(the first {COMPARED:,} words behind what is common were compared)")
    return " ".join(piece for piece in pieces if piece)


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _joined(tokens: Sequence[str]) -> str:
    """Tokens as one line, fit for a terminal, its middle left out where it is long."""
    text = " ".join("".join(tokens).split())
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} ... {text[-SHOWN // 2 :]}"
