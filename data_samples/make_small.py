"""Write data_samples/small: about 600 documents, made by templates and a seeded generator, for the tests.

    python data_samples/make_small.py [OUT_DIR]        (default: data_samples/small)

Everything in it was written for this project; nothing was copied. The pool holds what real pools hold:
several kinds of text, exact copies, an empty document, documents of one word, scripts other than Latin,
combining marks, emoji. The guide and the test hold word problems that the pool does not.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
    ]
)
POOL_DOCUMENTS = {"recipes": 150, "maths": 110, "code": 150, "logs": 120, "notes": 40}
GUIDE_DOCUMENTS = TEST_DOCUMENTS = 40

Row = dict[str, Any]


class Draws:
    """Numbers that depend on a name alone, so that no document depends on the ones before it.

    `random.Random` would do, were its integers promised to stay the same in every Python.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0

    def below(self, limit: int) -> int:
        """Return an integer in [0, limit)."""
        self.count += 1
        digest = hashlib.sha256(f"{self.name}/{self.count}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % limit

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def one(self, choices: Sequence[str]) -> str:
        return choices[self.below(len(choices))]

    def some(self, choices: Sequence[str], count: int) -> list[str]:
        """Return `count` different choices, in drawn order."""
        left = list(choices)
        return [left.pop(self.below(len(left))) for _ in range(count)]


PEOPLE = [
    "Amara",
    "Bjorn",
    "Chidi",
    "Dalia",
    "Emeka",
    "Farah",
    "Goran",
    "Hana",
    "Imre",
    "Jaya",
    "Kofi",
    "Lena",
    "Mirek",
    "Nadia",
    "Otto",
    "Priya",
]
THINGS = [
    "apples",
    "pencils",
    "marbles",
    "stickers",
    "shells",
    "buttons",
    "tickets",
    "candles",
    "postcards",
    "seeds",
    "coins",
    "ribbons",
]
PLACES = [
    "market",
    "library",
    "harbour",
    "bakery",
    "station",
    "orchard",
    "workshop",
    "museum",
    "garden",
    "theatre",
]
INGREDIENTS = [
    "red lentils",
    "chickpeas",
    "brown rice",
    "rolled oats",
    "potatoes",
    "carrots",
    "leeks",
    "tomatoes",
    "spinach",
    "mushrooms",
    "onions",
    "garlic",
    "ginger",
    "yoghurt",
    "butter",
    "olive oil",
    "lemon juice",
    "cumin",
    "paprika",
    "black pepper",
]
DISHES = [
    "soup",
    "stew",
    "curry",
    "salad",
    "pie",
    "gratin",
    "porridge",
    "pilaf",
    "omelette",
    "dumplings",
    "flatbread",
    "casserole",
]
COOKING = [
    "Rinse the {0} and leave the water in the sink to run clear.",
    "Chop the {0} and soften it with the {1} over a low flame for {n} minutes.",
    "Stir in the {0}, cover the pan, and wait until it begins to smell sweet.",
    "Season with {0}; taste, and add a little more if it seems shy.",
    "Bake for {n} minutes, turning the dish once so that it browns evenly.",
    "Fold the {0} through the {1} with a wooden spoon.",
    "Let everything rest for {n} minutes under a clean cloth.",
    "Bring {n} cups of water to the boil and pour it over the {0}.",
    "Serve warm, with the {1} on the side.",
]
NOUNS = [
    "queue",
    "cache",
    "user",
    "order",
    "session",
    "index",
    "buffer",
    "token",
    "report",
    "batch",
    "device",
    "route",
]
VERBS = ["load", "merge", "parse", "count", "check", "flush", "update", "rotate", "find", "sort", "trim"]
SERVICES = ["gateway", "billing", "search", "mailer", "scheduler", "thumbnailer", "ledger"]
EVENTS = [
    "INFO {s}: request {h} finished in {n} ms",
    "WARN {s}: retry {k} of 5 for job {h}",
    "ERROR {s}: connection to 10.0.{k}.{n} refused",
    "DEBUG {s}: cache miss for key {w}:{n}",
    "INFO {s}: {n} rows flushed to segment {h}",
    "INFO {s}: heartbeat ok, {n} clients, load 0.{k}",
]
# One sentence and its tail; whole languages would be better, but no one of this project writes them all well.
NOTES = [
    ("今天的天气很好", "我们去公园散步，然后喝茶。"),
    ("这本书讲的是数据", "先读第一章，再做练习。"),
    ("आज मौसम अच्छा है", "हम बगीचे में चाय पी रहे हैं।"),
    ("यह किताब नई है", "पहला पाठ ध्यान से पढ़ो।"),
    ("Σήμερα έχει ήλιο", "ΠΑΜΕ ΣΤΗ ΘΑΛΑΣΣΑ ΜΕ ΤΟΥΣ ΦΙΛΟΥΣ ΜΑΣ."),
    ("Сегодня идёт дождь", "Мы остались дома и читали книгу."),
    ("اليوم مشمس", "ذهبنا إلى السوق واشترينا الخبز."),
    ("Party at eight 🎉🎉", "bring 🍕, no ⏰ needed 👩🏽‍🚀"),
    ("Cafe\u0301 re\u0301sume\u0301 nai\u0308ve", "written with combining marks, not with single letters"),
    ("İstanbul'da güneş", "ILIK BİR GÜN, ışık her yerde."),
    ("今日は晴れです", "公園でお茶を飲みました。"),
    ("오늘은 맑아요", "공원에서 차를 마셨어요."),
]


def recipe(draw: Draws) -> str:
    parts = draw.some(INGREDIENTS, 5)
    dish = f"{parts[0].title()} and {parts[1]} {draw.one(DISHES)}"
    amounts = "\n".join(f"- {draw.between(1, 9) * 50} g {part}" for part in parts)
    steps = [
        step.format(*draw.some(parts, 2), n=draw.between(3, 45))
        for step in draw.some(COOKING, draw.between(3, 6))
    ]
    return f"{dish}\nServes {draw.between(2, 8)}\n\n{amounts}\n\n" + " ".join(steps)


def maths(draw: Draws) -> str:
    who, other = draw.some(PEOPLE, 2)
    thing, place = draw.one(THINGS), draw.one(PLACES)
    a, b, c = draw.between(12, 96), draw.between(3, 11), draw.between(2, 9)
    kinds = [
        (
            f"{who} buys {b} boxes of {thing} at the {place}. Each box holds {a} {thing}, and {who} gives "
            f"{c} boxes' worth away to {other}. How many {thing} did the shop hand over in total?",
            f"There are {b} boxes with {a} {thing} each, so the total is {b} * {a} = {b * a}.",
            b * a,
        ),
        (
            f"On Monday the {place} sold {a} {thing}. On Tuesday it sold {b} times as many, and {who} "
            f"returned {c} of them. How many {thing} were sold over both days after the return?",
            f"Tuesday's sales are {a} * {b} = {a * b}. Together {a} + {a * b} = {a + a * b}; "
            f"less {c} that is {a + a * b - c}.",
            a + a * b - c,
        ),
        (
            f"{who} walks {b} km to the {place} every day, and {other} walks {c} km further than {who}. "
            f"After {a} days, how many kilometres have the two walked altogether?",
            f"{other} walks {b} + {c} = {b + c} km a day. In a day both walk {b} + {b + c} = {2 * b + c} km, "
            f"in {a} days {a} * {2 * b + c} = {a * (2 * b + c)} km.",
            a * (2 * b + c),
        ),
        (
            f"A ticket to the {place} costs {b} dollars and a bag of {thing} costs {c} dollars. {who} has "
            f"{a + b + c} dollars and buys one of each. How many dollars are left?",
            f"Both cost {b} + {c} = {b + c} dollars. That leaves {a + b + c} - {b + c} = {a} dollars.",
            a,
        ),
    ]
    question, working, answer = kinds[draw.below(len(kinds))]
    return f"Question: {question}\nAnswer: {working}\nThe answer is {answer}."


def code(draw: Draws) -> str:
    verb, noun = draw.one(VERBS), draw.one(NOUNS)
    other, number = draw.one(NOUNS), draw.between(2, 512)
    bodies = [
        f"    total = 0\n    for item in {noun}s:\n        if item.{other} > {number}:\n"
        f"            total += item.{other} % {number}\n    return total\n",
        f"    if not {noun}s:\n        return None\n    first, *rest = {noun}s\n"
        f"    return {{first.{other}: [x for x in rest if x.{other} != {number}]}}\n",
        f"    with open(path_of({noun}s)) as handle:\n        lines = handle.readlines()[:{number}]\n"
        f'    return [line.strip() for line in lines if "{other}" in line]\n',
        f"    seen = set()\n    while {noun}s and len(seen) < {number}:\n"
        f"        seen.add({noun}s.pop().{other})\n    return sorted(seen)\n",
    ]
    name = f"{verb}_{noun}s"
    call = f"\n\nassert {name}([]) in (None, 0, [])  # {draw.one(VERBS)} the {other} first\n"
    return f"def {name}({noun}s):\n{bodies[draw.below(len(bodies))]}" + (call if draw.below(2) else "")


def log(draw: Draws) -> str:
    day = draw.between(1, 28)
    lines = []
    for i in range(draw.between(3, 9)):
        event = draw.one(EVENTS).format(
            s=draw.one(SERVICES), w=draw.one(NOUNS), n=draw.between(1, 250), k=draw.between(1, 9),
            h=f"{draw.below(16**8):08x}",
        )  # fmt: skip
        lines.append(f"2021-03-{day:02d}T{draw.below(24):02d}:{draw.below(60):02d}:{5 * i:02d}Z {event}")
    return "\n".join(lines)


def note(draw: Draws) -> str:
    chosen = [NOTES[i] for i in (draw.below(len(NOTES)), draw.below(len(NOTES)))]
    return "\n".join(f"{head} {draw.between(1, 99)}. {tail}" for head, tail in chosen)


KINDS: dict[str, Callable[[Draws], str]] = {
    "recipes": recipe,
    "maths": maths,
    "code": code,
    "logs": log,
    "notes": note,
}


def row(source: str, number: int, text: str) -> Row:
    """Return a row; every tenth has no score, as happens where a corpus was scored in part."""
    identity = f"{source}-{number:04d}"
    score = None if number % 10 == 9 else Draws(f"score/{identity}").below(1000) / 1000
    return {"id": identity, "text": text, "source": source, "score": score}


def make_pool() -> list[Row]:
    """Return the pool in a drawn order: documents of each kind, then the awkward ones."""
    rows = [
        row(source, number, KINDS[source](Draws(f"{source}/{number}")))
        for source, count in POOL_DOCUMENTS.items()
        for number in range(count)
    ]
    copies = [rows[i]["text"] for i in (3, 3, 40, 170, 171, 300, 301, 302, 450, 451, 540, 541)]
    awkward = ["", "", " ", "\n\t\n", "ok", "a", "42", "?!", "🙂", "क", "字", "e\u0301", "\u200b", "İ", "ΣΑΣ"]
    awkward += ["word " * 400, "many   spaces    and\ttabs\r\nand a carriage return\u00a0and a hard space"]
    rows += [row("copies", number, text) for number, text in enumerate(copies)]
    rows += [row("awkward", number, text) for number, text in enumerate(awkward)]
    return sorted(rows, key=lambda r: hashlib.sha256(f"order/{r['id']}".encode()).digest())


def make_target(name: str, count: int) -> list[Row]:
    return [row(f"maths_{name}", number, maths(Draws(f"maths_{name}/{number}"))) for number in range(count)]


def write_jsonl(path: Path, rows: Sequence[Row]) -> None:
    lines = [json.dumps(r, ensure_ascii=False) for r in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def main(out: Path) -> None:
    (out / "pool").mkdir(parents=True, exist_ok=True)
    pool = make_pool()
    half = len(pool) // 2
    for number, rows in enumerate((pool[:half], pool[half:])):
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        path = out / "pool" / f"part-{number:05d}.parquet"
        pq.write_table(table, path, compression="zstd", row_group_size=100)
    write_jsonl(out / "guide.jsonl", make_target("guide", GUIDE_DOCUMENTS))
    write_jsonl(out / "test.jsonl", make_target("test", TEST_DOCUMENTS))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "small")
