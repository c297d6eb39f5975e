"""Make a real sample, offline, from what a Python installation carries.

    python data_samples/make_sample.py OUT_DIR [--mb 16] [--seed 7]

writes OUT_DIR/pool/part-0000N.parquet, OUT_DIR/guide.jsonl and OUT_DIR/test.jsonl with the columns `id`,
`text`, `source`. The pool is code, tests, C headers, tables, licences and readmes, and a little explanatory
prose about Python; guide and test are such prose. So there is something to find, and little of it.

    source        what
    stdlib_code   top-level functions and classes of the standard library
    package_code  the same of the installed packages
    test_code     the same of both, from test files
    headers       C headers of the installed packages
    tables        encoding tables, CSV, JSON, certificates, packages' file lists
    licences      licence and notice files
    readmes       packages' descriptions and text files
    docstrings    docstrings of modules that give no code to the pool   (the genre of guide and test)
    topics        sections of `help()`'s topics                         (the genre of guide and test)

Files are read, nothing is imported. The same installation, size and seed give the same rows. No document of
the pool has a Jaccard index of word 5-grams of 0.5 or more with one of guide or test, nor have these with
each other. Needs only pyarrow beside the standard library.
"""

from __future__ import annotations

import argparse
import ast
import codecs
import hashlib
import itertools
import json
import os
import re
import shutil
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("id", "text", "source")],
)
# Shares of the pool's bytes. What a source cannot give (a distribution may leave out the tests) is given by
# the bulk sources; prose is never used to fill up, or there would be too much to find.
SHARES = {
    "stdlib_code": 0.27,
    "package_code": 0.24,
    "test_code": 0.20,
    "headers": 0.06,
    "tables": 0.05,
    "licences": 0.03,
    "readmes": 0.03,
    "docstrings": 0.09,
    "topics": 0.03,
}
BULK = ("stdlib_code", "package_code", "test_code", "headers", "tables")
PROSE = ("topics", "docstrings")
POOL_FILES = 4
ROW_GROUPS = 4
CHUNK_BYTES = 4000
SECTION_BYTES = 1600
LEAST_BYTES = 200
# Modules whose docstrings are used and whose code is not: one in four gives enough of both.
DOCSTRING_MODULES_IN_100 = 25
NEAR = 0.5
SHINGLE_WORDS = 5

SKIPPED_FOLDERS = {"__pycache__", "site-packages", "dist-packages", "lib-dynload", "node_modules"}
TEST_FOLDERS = {"test", "tests", "idle_test", "testing"}
LICENCE_NAMES = ("licen", "copying", "notice", "authors", "thirdparty", "third_party")
TABLE_SUFFIXES = (".csv", ".json", ".pem", ".tsv")
TEXT_SUFFIXES = (".md", ".rst", ".txt")

_TOP_LEVEL = re.compile(r"^(?=(?:async def |def |class |@)\S)", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_WORDS = re.compile(r"\w+")

Gram = tuple[str, ...]


class Document(NamedTuple):
    id: str
    text: str
    source: str


class File(NamedTuple):
    """A file of the installation: `name` is its path from the folder that it was found in, with a label."""

    name: str
    path: Path


# ---------------------------------------------------------------------------------------------------------
# What there is


def draw(seed: int, name: str) -> bytes:
    """Return bytes to sort or choose by, that depend on the seed and the name alone."""
    return hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def installed_files() -> list[File]:
    """List the files of the standard library (`python/...`) and of the packages (`packages/...`), sorted.

    This project's own installation is left out: a sample should not change with the program that reads it.
    """
    paths = sysconfig.get_paths()
    stdlib = Path(paths["stdlib"])
    roots = [("python", stdlib)]
    roots += [("packages", Path(p)) for p in dict.fromkeys([paths["purelib"], paths["platlib"]])]
    found: dict[str, File] = {}
    for label, root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(f for f in folders if f not in SKIPPED_FOLDERS and not f.startswith("curate"))
            for name in sorted(names):
                path = Path(folder, name)
                relative = path.relative_to(root).as_posix()
                if not relative.startswith(("curate", "__editable__")):
                    found.setdefault(f"{label}/{relative}", File(f"{label}/{relative}", path))
    return sorted(found.values())


def source_of(file: File, seed: int) -> str | None:
    """Return the source that a file belongs to, None where it is of no use."""
    parts = file.name.lower().split("/")
    name = parts[-1]
    if any(word in name for word in LICENCE_NAMES) and not name.endswith((".py", ".h", ".so", ".pyi")):
        return "licences"
    if name == "metadata" or (name.endswith(TEXT_SUFFIXES) and not name.startswith("top_level")):
        return "readmes"
    if (
        name.endswith(TABLE_SUFFIXES)
        or name == "record"
        or (parts[1] == "encodings" and name.endswith(".py"))
    ):
        return "tables"
    if name.endswith((".h", ".hpp", ".pxd")):
        return "headers"
    if not name.endswith(".py") or parts[1] == "pydoc_data":
        return None
    if TEST_FOLDERS & set(parts[:-1]) or name.startswith("test_") or name == "conftest.py":
        return "test_code"
    # Vendored copies share the last two parts of their path: a module's docstrings must not come back as the
    # code of its twin.
    if int.from_bytes(draw(seed, "/".join(parts[-2:])), "big") % 100 < DOCSTRING_MODULES_IN_100:
        return "docstrings"
    return "stdlib_code" if parts[0] == "python" else "package_code"


def read(file: File) -> str:
    """Return a file's text, empty where it is no UTF-8, or is no text: tests carry such files on purpose."""
    try:
        text = file.path.read_bytes().decode("utf-8-sig")
    except (UnicodeDecodeError, OSError):
        return ""
    return "" if "\0" in text else text.replace("\r\n", "\n")


# ---------------------------------------------------------------------------------------------------------
# Files into documents of a sensible size


def pack(parts: Iterable[str], joint: str, least: int, most: int) -> Iterator[str]:
    """Join parts until they have `least` bytes; cut what has more than `most` at blank lines, then lines."""
    waiting = ""
    for part in parts:
        joined = waiting + joint + part if waiting else part
        if waiting and len(joined.encode()) > most:
            yield from cut(waiting, most)
            joined = part
        if len(joined.encode()) >= least:
            yield from cut(joined, most)
            joined = ""
        waiting = joined
    if waiting.strip():
        yield from cut(waiting, most)


def cut(text: str, most: int) -> Iterator[str]:
    """Cut text into pieces of about `most` bytes, at the coarsest borders that make them small enough."""
    if len(text.encode()) <= most:
        if text.strip():
            yield text.strip("\n")
        return
    for border, joint in ((_BLANK_LINES, "\n\n"), (re.compile("\n"), "\n")):
        pieces = border.split(text)
        if len(pieces) > 1:
            piece = ""
            for more in pieces:
                if piece and len((piece + joint + more).encode()) > most:
                    yield from cut(piece, most)
                    piece = more
                else:
                    piece = piece + joint + more if piece else more
            yield from cut(piece, most)
            return
    step = most if text.isascii() else most // 4  # a character has four bytes at most
    for start in range(0, len(text), step):
        yield text[start : start + step]


def code_documents(file: File, source: str) -> Iterator[Document]:
    """Give a file's top-level functions and classes, decorators with what they decorate."""
    blocks: list[str] = []
    decorated = False
    for block in _TOP_LEVEL.split(read(file)):
        if decorated:
            blocks[-1] += block
        else:
            blocks.append(block)
        decorated = block.startswith("@")
    for number, text in enumerate(pack(blocks, "", LEAST_BYTES, CHUNK_BYTES)):
        yield Document(f"{file.name}#{number}", text, source)


def text_documents(file: File, source: str) -> Iterator[Document]:
    """Give a text file's paragraphs, joined to sections; of a METADATA file, the description."""
    text = read(file)
    if file.path.name == "METADATA":
        text = text.partition("\n\n")[2]
    size = CHUNK_BYTES if source == "tables" else SECTION_BYTES
    for number, section in enumerate(pack(_BLANK_LINES.split(text), "\n\n", size // 2, size)):
        yield Document(f"{file.name}#{number}", section, source)


def docstring_documents(file: File, source: str) -> Iterator[Document]:
    """Give the docstrings of a module, its classes and functions, where they are more than a line or two."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's escape sequences
            tree = ast.parse(read(file))
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        doc = ast.get_docstring(node)
        if doc is None or len(doc) < LEAST_BYTES:
            continue
        line = getattr(node, "lineno", 0)
        sections = pack(_BLANK_LINES.split(doc), "\n\n", SECTION_BYTES // 2, 2 * SECTION_BYTES)
        for number, section in enumerate(sections):
            if len(section) >= LEAST_BYTES:
                yield Document(f"{file.name}:{line}#{number}", section, source)


def topic_documents(files: Iterable[File]) -> Iterator[Document]:
    """Give sections of the topics that `help()` knows, and the Zen of Python."""
    for file in files:
        if file.name == "python/this.py":
            strings = [n.value for n in ast.walk(ast.parse(read(file))) if isinstance(n, ast.Constant)]
            longest = max((s for s in strings if isinstance(s, str)), key=len, default="")
            yield Document("topics/zen#0", codecs.decode(longest, "rot13"), "topics")
        if file.name == "python/pydoc_data/topics.py":
            for node in ast.parse(read(file)).body:
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                    topics: dict[str, str] = ast.literal_eval(node.value)
                    for topic, text in sorted(topics.items()):
                        paragraphs = _BLANK_LINES.split(text.strip())
                        for number, section in enumerate(
                            pack(paragraphs, "\n\n", SECTION_BYTES // 2, SECTION_BYTES)
                        ):
                            yield Document(f"topics/{topic}#{number}", section, "topics")


READERS: dict[str, Callable[[File, str], Iterator[Document]]] = {
    "stdlib_code": code_documents,
    "package_code": code_documents,
    "test_code": code_documents,
    "headers": text_documents,
    "tables": text_documents,
    "licences": text_documents,
    "readmes": text_documents,
    "docstrings": docstring_documents,
}


def documents_by_source(files: list[File], seed: int) -> dict[str, Iterator[Document]]:
    """Return a lazy stream of documents per source, files in an order drawn from the seed."""
    chosen: dict[str, list[File]] = {source: [] for source in READERS}
    for file in files:
        source = source_of(file, seed)
        if source is not None:
            chosen[source].append(file)

    def stream(source: str) -> Iterator[Document]:
        for file in sorted(chosen[source], key=lambda f: draw(seed, f.name)):
            yield from READERS[source](file, source)

    topics = sorted(topic_documents(files), key=lambda d: draw(seed, d.id))
    return {**{source: stream(source) for source in READERS}, "topics": iter(topics)}


# ---------------------------------------------------------------------------------------------------------
# Guide and test, and what is too near to them


def grams(text: str) -> set[Gram]:
    words = _WORDS.findall(text.lower())
    if len(words) < SHINGLE_WORDS:
        return {tuple(words)}
    return set(zip(*(words[i:] for i in range(SHINGLE_WORDS)), strict=False))


class Targets:
    """The documents of guide and test, and an index from their grams to them."""

    def __init__(self) -> None:
        self.guide: list[Document] = []
        self.test: list[Document] = []
        self.sizes: list[int] = []
        self.index: dict[Gram, list[int]] = {}

    def is_near(self, own: set[Gram]) -> bool:
        """Say whether a document of these grams has a Jaccard index of NEAR or more with one of ours."""
        shared = Counter(itertools.chain.from_iterable(self.index[g] for g in own & self.index.keys()))
        return any(n / (len(own) + self.sizes[i] - n) >= NEAR for i, n in shared.items())

    def add(self, document: Document) -> None:
        """Add to the smaller of guide and test, unless something near is in one of them already."""
        own = grams(document.text)
        if self.is_near(own):
            return
        for gram in own:
            self.index.setdefault(gram, []).append(len(self.sizes))
        self.sizes.append(len(own))
        (self.guide if len(self.guide) <= len(self.test) else self.test).append(document)


def take_targets(streams: dict[str, Iterator[Document]], each: int) -> tuple[Targets, list[Document]]:
    """Take guide and test from the prose, half of it topics; returns the topics left for the pool."""
    targets = Targets()
    topics = list(streams["topics"])
    # No more than two thirds of the topics, so that some stay in the pool.
    for document in topics[: min(each, 2 * len(topics) // 3)]:
        targets.add(document)
    for document in streams["docstrings"]:
        if len(targets.guide) >= each and len(targets.test) >= each:
            break
        targets.add(document)
    return targets, topics[min(each, 2 * len(topics) // 3) :]


def take_pool(
    streams: dict[str, Iterator[Document]], targets: Targets, pool_bytes: int
) -> tuple[list[Document], int]:
    """Take the pool by its shares, then fill up from the bulk; also the number left out as near a target."""
    pool: list[Document] = []
    left_out = 0
    taken = 0

    def take(source: str, most: float) -> bool:
        """Take documents of a source until `most` bytes; False when there are no more."""
        nonlocal left_out, taken
        mine = 0
        for document in streams[source]:
            if targets.is_near(grams(document.text)):
                left_out += 1
                continue
            pool.append(document)
            size = len(document.text.encode())
            mine += size
            taken += size
            if mine >= most:
                return True
        return False

    for source, share in SHARES.items():
        take(source, share * pool_bytes)
    giving = list(BULK)
    while giving and taken < pool_bytes:
        giving = [source for source in giving if take(source, (pool_bytes - taken) / len(giving))]
    return pool, left_out


# ---------------------------------------------------------------------------------------------------------
# Writing


def write_pool(folder: Path, pool: list[Document]) -> None:
    folder.mkdir()
    for number in range(POOL_FILES):
        rows = pool[number * len(pool) // POOL_FILES : (number + 1) * len(pool) // POOL_FILES]
        table = pa.Table.from_pylist([d._asdict() for d in rows], schema=SCHEMA)
        pq.write_table(
            table,
            folder / f"part-{number:05d}.parquet",
            compression="zstd",
            row_group_size=-(-max(len(rows), 1) // ROW_GROUPS),
        )


def write_jsonl(path: Path, documents: list[Document]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(d._asdict(), ensure_ascii=False) + "\n" for d in documents)


def stamp_of(mb: float, seed: int, files: list[File]) -> dict[str, object]:
    """Return what the rows depend on: the words of the call, this script, the files' names and sizes."""
    seen = hashlib.sha256()
    for file in files:
        size = file.path.stat().st_size if file.path.is_file() else -1  # -1: a link to nowhere
        seen.update(f"{file.name}\0{size}\n".encode("utf-8", "surrogatepass"))
    return {
        "mb": mb,
        "seed": seed,
        "script": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "python": sys.version.split()[0],
        "files": seen.hexdigest(),
    }


def usable(out: Path) -> bool:
    """Say whether OUT may be replaced: it is not there, or empty, or an earlier sample."""
    return not out.exists() or (out.is_dir() and (not any(out.iterdir()) or (out / "sample.json").exists()))


def make_sample(out: Path, mb: float, seed: int) -> str:
    """Make the sample unless it is there; returns what to tell the person."""
    files = installed_files()
    stamp = stamp_of(mb, seed, files)
    try:
        done = json.loads((out / "sample.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        done = {}
    if done and done.get("stamp") == stamp:
        return f"{out}: the sample is there already\n{done['summary']}"

    each = min(300, max(40, round(12.5 * mb)))
    streams = documents_by_source(files, seed)
    targets, topics = take_targets(streams, each)
    streams["topics"] = iter(topics)
    pool, left_out = take_pool(streams, targets, round(mb * 1e6))
    pool.sort(key=lambda d: draw(seed, d.id))
    summary = summarise(pool, targets, left_out, mb)

    waiting = out.parent / f".{out.name}.{os.getpid()}.tmp"
    shutil.rmtree(waiting, ignore_errors=True)
    waiting.mkdir(parents=True)
    try:
        write_pool(waiting / "pool", pool)
        write_jsonl(waiting / "guide.jsonl", targets.guide)
        write_jsonl(waiting / "test.jsonl", targets.test)
        facts = {"stamp": stamp, "summary": summary}
        (waiting / "sample.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        waiting.rename(out)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
    return f"{out}\n{summary}"


def summarise(pool: list[Document], targets: Targets, left_out: int, mb: float) -> str:
    rows, sizes = Counter[str](), Counter[str]()
    for document in pool:
        rows[document.source] += 1
        sizes[document.source] += len(document.text.encode())
    total = sum(sizes.values())
    lines = [f"{'source':<14}{'documents':>10}{'MB':>8}"]
    lines += [
        f"{source:<14}{rows[source]:>10,}{sizes[source] / 1e6:>8.2f}{'' if rows[source] else '  (none here)'}"
        for source in SHARES
    ]
    lines.append(f"{'pool':<14}{len(pool):>10,}{total / 1e6:>8.2f}")
    copies = len(pool) - len({d.text for d in pool})
    lines.append(f"{copies:,} exact copies kept; {left_out:,} documents left out, too near to guide or test")
    for name, documents in (("guide", targets.guide), ("test", targets.test)):
        size = sum(len(d.text.encode()) for d in documents)
        lines.append(f"{name:<14}{len(documents):>10,}{size / 1e6:>8.2f}")
    if total < mb * 1e6:
        lines.append(
            f"asked for {mb:g} MB: this installation carries no more; install packages or ask for less"
        )
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "out", type=Path, metavar="OUT_DIR", help="folder to make; an earlier sample is replaced"
    )
    parser.add_argument("--mb", type=float, default=16.0, help="size of the pool's text, in 10^6 bytes (16)")
    parser.add_argument("--seed", type=int, default=7, help="which files, which order (7)")
    asked = parser.parse_args(words)
    if not asked.mb > 0:
        parser.error(f"--mb: expected a size above 0, got {asked.mb:g}")
    if not usable(asked.out):
        parser.error(
            f"OUT_DIR: expected a new folder or an earlier sample, got {asked.out}, which holds else"
        )
    print(make_sample(asked.out, asked.mb, asked.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
