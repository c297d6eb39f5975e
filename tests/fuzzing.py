"""Damage files at random, run the command over them, and judge what it did: `python fuzzing.py SEED COUNT RESULT_FILE`.

A case is a pool of one sound file and one damaged one. Everything about it follows from the seed and its number. The
judge never asks the program's own readers what a file holds: it knows what was written, and reads damaged text with
the standard library. One process goes through many cases and writes a line before and after each, so that the process
that started it knows which case killed it or took too long, and starts another for the cases that are left.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

Texts = Counter[str]

SOUND = [f"sound {n}: a row of the other file, long enough for every filter here" for n in range(7)]
WORDS = ["the", "of", "and", "to", "in", "is", "you", "that", "it", "he", "for", "was", "on", "are", "with", "as", "his", "they", "be", "at"]
QUARANTINE = "quarantine"


@dataclass
class Case:
    """A damaged file, and what may come of it.

    kept: the texts that must be kept, exactly; None where only the damage itself knows.
    written: what the file held before; where `sealed` (checksums cover every byte of the text), nothing else may be
    kept. rows: how many rows must be accounted for; None where the damage may have changed that too.
    """

    number: int
    name: str
    data: bytes
    on_error: str
    what: str
    written: Texts
    codes: frozenset[int] = frozenset({0, 3})
    kept: Texts | None = None
    rows: int | None = None
    sealed: bool = False


# -- what is written --------------------------------------------------------------------------------------


def texts_of(rng: random.Random, count: int) -> list[str]:
    """Texts that are all different, some long, some with what formats stumble over."""
    extras = ["", " \u00e9\u4e2d\U0001f600", ' with "quotes", commas', "\nsecond line", "\ttab", "\u2028", "\\u0041", "\r\nx"]
    return [f"doc {n}: " + " ".join(rng.choices(WORDS, k=rng.choice((3, 9, 60)))) + rng.choice(extras) for n in range(count)]


def json_lines(texts: list[str]) -> bytes:
    rows = [{"text": text, "source": "s", "n": n, "more": {"a": [n, None]}} for n, text in enumerate(texts)]
    return "".join(json.dumps(row, ensure_ascii=n % 2 == 0) + "\n" for n, row in enumerate(rows)).encode()


def comma_separated(texts: list[str]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["text", "source", "n"])
    writer.writerows([text, "s", n] for n, text in enumerate(texts))
    return out.getvalue().encode()


def a_table(rng: random.Random, texts: list[str]) -> pa.Table:
    """The texts as a column of some type, beside columns of odd ones."""
    count = len(texts)
    kind = rng.choice(["string", "string", "large_string", "dictionary", "large_dictionary", "string_view", "binary"])
    column = {
        "string": lambda: pa.array(texts),
        "large_string": lambda: pa.array(texts, pa.large_string()),
        "dictionary": lambda: pa.array(texts).dictionary_encode(),
        "large_dictionary": lambda: pa.array(texts, pa.large_string()).dictionary_encode(),
        "string_view": lambda: pa.array(texts, pa.string_view()),
        "binary": lambda: pa.array([t.encode() for t in texts], pa.binary()),
    }[kind]()
    odd: dict[str, Callable[[], pa.Array]] = {
        "struct": lambda: pa.array([{"a": n, "b": [str(n)]} for n in range(count)]),
        "map": lambda: pa.array([[("k", n)] for n in range(count)], pa.map_(pa.string(), pa.int64())),
        "decimal": lambda: pa.array(list(range(count)), pa.decimal128(20, 3)),
        "none": lambda: pa.nulls(count),
        "lists": lambda: pa.array([[[n], []] if n % 3 else None for n in range(count)], pa.list_(pa.list_(pa.int32()))),
        "fixed": lambda: pa.array([bytes([n % 256]) * 7 for n in range(count)], pa.binary(7)),
        "when": lambda: pa.array(range(count), pa.timestamp("ns", "UTC")),
        "uuid": lambda: pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes([n % 256]) * 16 for n in range(count)], pa.binary(16))),
        "half": lambda: pa.array(range(count), pa.float32()).cast(pa.float16()),
        "yes": lambda: pa.array([n % 2 == 0 for n in range(count)]),
    }
    names = rng.sample(sorted(odd), rng.randint(0, 3))
    return pa.table({"text": column, "source": pa.array(["s"] * count), "n": pa.array(range(count))} | {name: odd[name]() for name in names})


def parquet(rng: random.Random, texts: list[str]) -> tuple[bytes, bool]:
    """A parquet file, and whether its pages carry checksums."""
    checksums = rng.random() < 0.7
    out = io.BytesIO()
    pq.write_table(
        a_table(rng, texts), out, row_group_size=rng.choice((5, 16, 1000)), compression=rng.choice(("none", "snappy", "zstd", "gzip", "lz4")),
        use_dictionary=rng.random() < 0.5, write_page_checksum=checksums, data_page_version=rng.choice(("1.0", "2.0")),
        data_page_size=rng.choice((64, 1 << 20)), write_statistics=rng.random() < 0.5, store_schema=rng.random() < 0.8,
    )  # fmt: skip
    return out.getvalue(), checksums


def arrow(rng: random.Random, texts: list[str]) -> bytes:
    table = a_table(rng, texts)
    out = io.BytesIO()
    opener = rng.choice((pa.ipc.new_file, pa.ipc.new_stream))
    with opener(out, table.schema, options=pa.ipc.IpcWriteOptions(compression=rng.choice((None, "zstd", "lz4")))) as writer:
        writer.write_table(table, max_chunksize=rng.choice((5, 16, 1000)))
    return out.getvalue()


# -- how it is damaged ------------------------------------------------------------------------------------


def _place(rng: random.Random, data: bytes, most: int = 200) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randint(1, most))


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def truncate_the_end(rng: random.Random, data: bytes) -> bytes:
    return data[: max(0, len(data) - rng.randint(1, 20))]


def flip(rng: random.Random, data: bytes) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def flip_the_end(rng: random.Random, data: bytes) -> bytes:
    """Where parquet and Arrow files keep their lengths, schemas and offsets."""
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 3))):
        spoilt[-rng.randint(1, min(1500, len(spoilt)))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def set_bytes(rng: random.Random, data: bytes) -> bytes:
    """Extreme values, which as lengths and counts are negative or enormous."""
    spoilt = bytearray(data)
    start = rng.randrange(len(spoilt))
    for at in range(start, min(len(spoilt), start + rng.choice((1, 2, 4, 8)))):
        spoilt[at] = rng.choice((0x00, 0x7F, 0x80, 0xFF, 0xFE, 0x01))
    return bytes(spoilt)


def zero_a_block(rng: random.Random, data: bytes) -> bytes:
    start, stop = _place(rng, data, 600)
    return data[:start] + bytes(stop - start) + data[stop:]


def double_a_block(rng: random.Random, data: bytes) -> bytes:
    start, stop = _place(rng, data, 600)
    return data[:stop] + data[start:stop] + data[stop:]


def lose_a_block(rng: random.Random, data: bytes) -> bytes:
    start, stop = _place(rng, data)
    return data[:start] + data[stop:]


def swap_blocks(rng: random.Random, data: bytes) -> bytes:
    size = rng.randint(1, 64)
    first, second = sorted(rng.randrange(max(1, len(data) - size)) for _ in range(2))
    second = max(second, first + size)
    return data[:first] + data[second : second + size] + data[first + size : second] + data[first : first + size] + data[second + size :]


def insert_noise(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 40)) + data[at:]


def append_noise(rng: random.Random, data: bytes) -> bytes:
    return data + rng.choice((rng.randbytes(rng.randint(1, 40)), bytes(rng.randint(1, 40)), b"PAR1", b"\x1f\x8b", b"\n\n"))


def double(rng: random.Random, data: bytes) -> bytes:
    return data + data


def wrong_magic(rng: random.Random, data: bytes) -> bytes:
    return rng.choice((b"PAR1", b"ARROW1\0\0", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"PARE", b"\xff\xfe", b"\0\0\0\0")) + data[4:]


def empty(rng: random.Random, data: bytes) -> bytes:
    return rng.choice((b"", b" \n\t\r\n \n", b"\n", b"\xef\xbb\xbf", b"\0", bytes(4096)))


def untouched(rng: random.Random, data: bytes) -> bytes:
    return data


DAMAGE = [
    truncate, truncate, truncate_the_end, flip, flip, flip, flip_the_end, flip_the_end, set_bytes, set_bytes, zero_a_block, double_a_block,
    lose_a_block, swap_blocks, insert_noise, append_noise, double, wrong_magic, empty, untouched,
]  # fmt: skip


def odd_lines(rng: random.Random, data: bytes) -> bytes:
    """Put lines that are hard to read between the others."""
    lines = data.split(b"\n")[:-1]
    hard: list[bytes] = [
        b'{"text": "\\ud800 lone"}', b'{"text": "\\ud83d\\ude00 pair"}', b'{"text": 7}', b'{"text": "nul \\u0000 inside"}', b'{"text": "raw \0 nul"}',
        b'{"text": ' + b"[" * 3000 + b"]" * 3000 + b"}", b'{"deep": ' + b"[" * 800 + b"]" * 800 + b', "text": "deep"}', b'{"text": NaN}',
        b'{"text": "a", "text": "twice"}', b'{"text": "\xff\xfe"}', b'{"text": "\xed\xa0\x80"}', b"[]", b"null", b'"text"', b"{}", b"{", b"}",
        b'{"text": "crlf"}\r', b"\xef\xbb\xbf" + b'{"text": "late mark"}', b'{"text": null}', b'{"text": "big", "n": 123456789012345678901234567890}',
        b'{"text": "float", "n": 1e400}', b'{"text": "neg", "n": -0}', b'{"text": "x", "": 1}', b'{"text": "x", "more": 5}', b"\x0b", b"\x1e{}", b'{"text": "y"} {"text": "z"}',
        b'{"te\\u0078t": "escaped key"}', b'{"TEXT": "case"}', b"'text'", b'{"text": "unfinished', b'{"text": "tab\there"}', b'{"text": "a",}', b"   ", b"\r", b"",
    ]  # fmt: skip
    for _ in range(rng.randint(1, 6)):
        lines.insert(rng.randint(1, len(lines)), rng.choice(hard))
    made = rng.choice((b"\n", b"\n", b"\r\n")).join(lines) + rng.choice((b"", b"\n"))
    return rng.choice((b"", b"", b"\xef\xbb\xbf")) + made


def odd_quotes(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    hard = [b'"open,s,1', b'a"b,s,1', b'"a"b,s,1', b'"a""b",s,1', b"one", b"a,b,c,d,e", b",,", b'"",s,1', b"\0,s,1", b"\xff,s,1", b"", b'"', b'""', b"x,s,1\r"]
    for _ in range(rng.randint(1, 4)):
        lines.insert(rng.randint(1, len(lines)), rng.choice(hard))
    return rng.choice((b"", b"\xef\xbb\xbf")) + rng.choice((b"\n", b"\r\n")).join(lines)


# -- what must come of it: readers of the standard library --------------------------------------------------


class RefusedError(ValueError):
    pass


def _refuse(word: str) -> Any:
    raise RefusedError(word)


def _finite(word: str) -> float:
    return float(word) if math.isfinite(float(word)) else _refuse(word)


def line_text(line: bytes) -> str | None:
    """The text of one line of JSON, None where the row is bad."""
    try:
        row = json.loads(line.decode(), parse_constant=_refuse, parse_float=_finite)
        if type(row) is not dict or type(row.get("text")) is not str:
            return None
        json.dumps(row, ensure_ascii=False).encode()  # no lone surrogate anywhere
        text: str = row["text"]
        return text
    except (ValueError, RecursionError):
        return None


def lines_of(data: bytes) -> list[bytes]:
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [line for line in lines if line.strip(b" \t\r")]


def judge_lines(case: Case, data: bytes, broken: bool = False) -> None:
    """Say what a file of lines must give; `broken` adds one row for what is lost."""
    lines = lines_of(data)
    found = [line_text(line) for line in lines]
    good = [text for text in found if text is not None]
    bad = len(found) - len(good) + broken
    case.rows, case.kept = len(found) + broken, Counter(good)
    if case.on_error == "fail":
        case.codes = frozenset({3 if bad else 0})
    elif found and found[0] is None and lines[0].lstrip(b" \t\r")[:1] == b"[":
        case.codes = frozenset({3})  # a JSON array in a file of lines is told as such
    else:
        case.codes = frozenset({0})


def inflate(data: bytes) -> tuple[bytes, int, str]:
    """(text, bytes of it that whole members vouch for, "" or "cut" or "spoilt") of a gzip file."""
    out, sound = b"", 0
    while True:
        unpack = zlib.decompressobj(31)
        try:
            out += unpack.decompress(data)
        except zlib.error:
            return out, sound, "spoilt"
        if not unpack.eof:
            return out, sound, "cut"
        sound = len(out)
        data = unpack.unused_data
        if not data.strip(b"\0"):
            return out, sound, ""


def expand(data: bytes) -> tuple[bytes, int, str]:
    """The same of a zstd file."""
    out, sound = b"", 0
    while True:
        if data[:4] != b"" and len(data) >= 8 and data[1:4] == b"\x2a\x4d\x18" and 0x50 <= data[0] <= 0x5F:
            size = 8 + int.from_bytes(data[4:8], "little")
            if size > len(data):
                return out, sound, "cut"
            data = data[size:]
        else:
            unpack = zstandard.ZstdDecompressor().decompressobj()
            try:
                out += unpack.decompress(data)
            except zstandard.ZstdError:
                return out, sound, "spoilt"
            if not unpack.eof:
                return out, sound, "cut"
            sound = len(out)
            data = unpack.unused_data
        if not data:
            return out, sound, ""


# -- cases ------------------------------------------------------------------------------------------------

FORMATS = ["parquet"] * 6 + ["jsonl"] * 3 + ["jsonl.gz"] * 3 + ["jsonl.zst"] * 2 + ["csv", "csv.gz", "arrow"]


def make_case(seed: str, number: int) -> Case:
    """Everything about a case, from the seed and its number alone."""
    rng = random.Random(f"{seed}:{number}")
    format = rng.choice(FORMATS)
    texts = texts_of(rng, rng.choice((1, 9, 40)))
    harm: Callable[[random.Random, bytes], bytes] = rng.choice(DAMAGE)
    sealed = False
    if format == "parquet":
        data, sealed = parquet(rng, texts)
    elif format == "arrow":
        data = arrow(rng, texts)
    else:
        data = comma_separated(texts) if format.startswith("csv") else json_lines(texts)
        if rng.random() < 0.4:
            harm_lines = odd_quotes if format.startswith("csv") else odd_lines
            data = harm_lines(rng, data)
            harm = rng.choice((harm, untouched))
        if format.endswith(".gz"):
            at = rng.randrange(len(data))
            data = gzip.compress(data, mtime=0) if rng.random() < 0.5 else gzip.compress(data[:at], mtime=0) + gzip.compress(data[at:], mtime=0)
        elif format.endswith(".zst"):
            at = rng.randrange(len(data))
            press = zstandard.ZstdCompressor(write_checksum=True).compress
            skipped = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"aside"
            data = rng.choice((press(data), press(data[:at]) + press(data[at:]), press(data[:at]) + skipped + press(data[at:])))
    whole = data
    data = harm(rng, data)
    case = Case(number, f"bad.{format}", data, rng.choice(("fail", QUARANTINE)), f"{format}: {harm.__name__}", Counter(texts), sealed=sealed)
    if rng.random() < 0.04:
        case.name = "bad." + rng.choice(("parquet", "jsonl", "jsonl.gz", "jsonl.zst", "csv", "arrow"))
        case.what += f" named {case.name}"
    if case.name == f"bad.{format}":
        _expect(case, format, whole, texts)
    else:
        case.sealed = False
    return case


def _expect(case: Case, format: str, whole: bytes, texts: list[str]) -> None:
    data = case.data
    if format in ("parquet", "arrow"):
        if data == whole:
            case.codes, case.kept, case.rows = frozenset({0}), Counter(texts), len(texts)
        return
    if format.startswith("csv"):
        return  # nothing in it says what was meant; only the balance, the exit code and the message are judged
    gz, zst = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
    if format == "jsonl":
        if not data.startswith((gz, zst)):
            judge_lines(case, data)
            return
        format = "jsonl.gz" if data.startswith(gz) else "jsonl.zst"  # where the name says nothing, the first bytes do
    magic = gz if format.endswith(".gz") else zst
    if not magic.startswith(data[: len(magic)]) and not data.startswith(magic):
        case.codes = frozenset({3})  # something else under this name
        return
    out, sound, broken = (inflate if format.endswith(".gz") else expand)(data)
    if not broken:
        judge_lines(case, out)
        return
    cut = out.rfind(b"\n") + 1
    usable = out[: cut if broken == "cut" else out[:sound].rfind(b"\n") + 1]
    judge_lines(case, usable, broken=True)


# -- carrying a case out ------------------------------------------------------------------------------------


def least_bytes(case: Case) -> int:
    """A filter that every third case has: then the texts are read once more, and only some rows."""
    return 0 if case.number % 3 else 40


def carry_out(case: Case, folder: Path) -> str:
    """Run the command on a case; return what is wrong, or nothing."""
    from curate.cli import main

    shutil.rmtree(folder, ignore_errors=True)
    pool = folder / "pool"
    pool.mkdir(parents=True)
    (pool / case.name).write_bytes(case.data)
    (pool / "sound.jsonl").write_text("".join(json.dumps({"text": text, "source": "s"}) + "\n" for text in SOUND))
    recipe = {"name": "fuzz", "corpus": {"paths": [str(pool)], "source": "source", "on_error": case.on_error}, "stages": [{"length": {"min_bytes": least_bytes(case)}}]}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(["run", str(folder / "recipe.yaml"), "--run", str(folder / "run"), "--workers", "1", "-q"])
        except SystemExit as done:
            code = done.code
        except BaseException:
            return "a traceback: " + traceback.format_exc(limit=-4)
    return judge(case, code, err.getvalue(), folder)


def _plain(text: str | bytes) -> str:
    return text.decode() if isinstance(text, bytes) else text


def judge(case: Case, code: object, said: str, folder: Path) -> str:
    """What is wrong with what a run did, or nothing."""
    if "Traceback" in said:
        return f"a traceback: {said[-800:]}"
    if code not in case.codes:
        return f"exit {code}, expected {sorted(case.codes)}: {said[-800:]}"
    if code != 0:
        named = case.name in said
        return "" if said.startswith("error: ") and named else f"exit {code} without the file's name: {said[-800:]}"
    funnel = pq.read_table(folder / "run" / "funnel.parquet").to_pylist()
    rows = sum(row["documents"] for row in funnel) - len(SOUND)
    aside = sum(row["documents"] for row in funnel if row["stage"] == QUARANTINE)
    short = sum(row["documents"] for row in funnel if row["stage"] == "length")
    files = sorted((folder / "run" / "mixture" / "data").glob("*.parquet"))
    kept = Counter(_plain(row["text"]) for file in files for row in pq.read_table(file, columns=["text"]).to_pylist()) - Counter(SOUND)
    if sum(kept.values()) + aside + short != rows:
        return f"{rows} rows in the funnel, {sum(kept.values())} kept, {short} too short and {aside} set aside"
    if case.rows is not None and rows != case.rows:
        return f"{rows} rows accounted for, expected {case.rows}"
    if case.kept is not None:
        wanted = Counter({text: n for text, n in case.kept.items() if len(text.encode()) >= least_bytes(case)})
        if kept != wanted:
            return f"lost {list((wanted - kept).elements())[:3]}, invented {list((kept - wanted).elements())[:3]}"
    # DuckDB takes the first of two equal keys, everyone else the last: docs/sql.md says so.
    wrong = judge_view(folder, rows - aside) if case.kept is None or "twice" not in case.kept else ""
    if wrong:
        return wrong
    if case.sealed and kept - case.written:
        return f"kept what was never written: {list((kept - case.written).elements())[:3]}"
    if case.kept is None and case.name == "bad.parquet" and case.sealed and rows < sum(case.written.values()):
        return f"{rows} rows accounted for, {sum(case.written.values())} were written"
    return ""


def judge_view(folder: Path, rows: int) -> str:
    """What is wrong with the catalog's own way to the texts, where it has one: it must show what was measured."""
    import duckdb
    import xxhash

    with duckdb.connect(str(folder / "run" / "catalog.duckdb"), read_only=True) as con:
        if not con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'texts'").fetchall():
            return ""
        try:
            found = con.execute("SELECT text, curate_identity FROM texts WHERE curate_identity IS NOT NULL").fetchall()
        except duckdb.Error as error:
            return f"SELECT FROM texts: {error}"
    if len(found) != rows + len(SOUND):
        return f"{len(found)} texts in SQL, {rows + len(SOUND)} documents"
    other = [text for text, identity in found if xxhash.xxh3_128_hexdigest(text if isinstance(text, bytes) else text.encode()) != identity]
    return f"other texts in SQL than were read: {other[:3]}" if other else ""


def go_through(seed: str, first: int, stop: int, folder: Path) -> None:
    """Carry cases out one after another; one line of JSON before, and one after each."""
    for number in range(first, stop):
        print(json.dumps({"begun": number}), flush=True)
        case = make_case(seed, number)
        wrong = carry_out(case, folder)
        print(json.dumps({"done": number, "what": case.what, "on_error": case.on_error, "wrong": wrong}), flush=True)


# -- watching over it -----------------------------------------------------------------------------------------


@dataclass
class Found:
    """What came of many cases: how many, by format and damage, and what was wrong, with the case's number."""

    cases: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def watch(seed: str, count: int, folder: Path, patience_seconds: float = 120) -> Found:
    """Carry out the cases 0..count in processes of their own; a death or a silence is a finding, not the end."""
    found = Found()
    first = 0
    while first < count:
        first = _watch_one(seed, first, count, folder, patience_seconds, found)
    return found


def _watch_one(seed: str, first: int, stop: int, folder: Path, patience_seconds: float, found: Found) -> int:
    """Run one process until it ends; return the first case that is left."""
    words = [sys.executable, "-X", "faulthandler", __file__, "--", seed, str(first), str(stop), str(folder)]
    errors = folder.with_name(folder.name + ".stderr")
    with errors.open("wb") as said, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True) as process:
        timer = threading.Timer(patience_seconds, process.kill)
        timer.start()
        begun, done = first, first
        assert process.stdout is not None
        for line in process.stdout:
            timer.cancel()
            timer = threading.Timer(patience_seconds, process.kill)
            timer.start()
            record = json.loads(line)
            begun = record.get("begun", begun)
            if "done" in record:
                done = record["done"] + 1
                found.cases += 1
                found.kinds[f"{record['what']}, {record['on_error']}"] += 1
                if record["wrong"]:
                    found.wrong.append(f"case {record['done']} ({record['what']}, {record['on_error']}): {record['wrong']}")
        process.wait()
        timer.cancel()
    if done == stop and process.returncode == 0:
        return stop
    found.cases += 1
    found.wrong.append(f"case {begun}: the process ended with {process.returncode}: {errors.read_text(errors='replace')[-800:]}")
    return begun + 1


def main(seed: str, count: int, result: Path) -> int:
    """Go through many cases and write what came of them."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = watch(seed, count, Path(folder) / "case")
    formats: Counter[str] = Counter()
    for kind, cases in found.kinds.items():
        formats[kind.split(":")[0]] += cases
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    summary = {
        "cases": found.cases, "wrong": found.wrong, "seed": seed, "commit": commit, "pyarrow": pa.__version__,
        "formats": dict(sorted(formats.items())), "damage": len(set(DAMAGE)) + 2, "seconds": round(time.perf_counter() - began),
    }  # fmt: skip
    result.write_text(json.dumps(summary, indent=1) + "\n")
    print(f"{found.cases} cases, {len(found.wrong)} of them wrong; {result}")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    if sys.argv[1] == "--":
        go_through(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    else:
        sys.exit(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
