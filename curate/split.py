"""Cut a target file into guide, tuning and test so that near-duplicates never stand on two sides.

A test that holds a paraphrase of a guide document measures memory. Documents whose word 5-grams overlap by
a Jaccard index of `threshold` or more are therefore joined, transitively, and a whole cluster goes to one
split. The Jaccard indices are the true ones (no sketches): a target has thousands of documents, not billions,
and for that many an inverted index with prefix filtering is exact and quick.

    clusters   = near_duplicate_clusters(texts)
    split_of   = assign(clusters, identities, fractions={"guide": 0.4, "test": 0.6}, seed=0)
    nearest    = largest_jaccard_between(texts, split_of)       # < threshold, by construction; checked anyway
"""

from __future__ import annotations

import gzip
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
import zstandard

from curate.corpus import TEXT, load_table
from curate.errors import ConfigError, DataError, InternalError
from curate.jaccard import check_threshold, largest_jaccard_between, near_duplicate_clusters, root_of
from curate.textview import View

DEFAULT_FRACTIONS: Mapping[str, float] = {"guide": 0.4, "tuning": 0.1, "test": 0.5}
FORMAT_VERSION = 1

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


# ---------------------------------------------------------------------------------------------------------
# Assignment


def assign(
    clusters: Sequence[int], identities: Sequence[str], *, fractions: Mapping[str, float], seed: int
) -> list[str]:
    """Return the split of each document; documents of one cluster, and of one identity, stay together.

    Clusters go largest first, equals in an order drawn from (seed, least identity in the cluster), each to
    the split that is furthest behind its fraction (Sainte-Lague's rule). So every split gets its share of
    the large clusters as well as of the single documents, realised fractions are off by about one cluster,
    and neither the order of the rows nor the numbers of the clusters matter. Adding documents does move
    others: split once, keep the files.
    """
    shares = _checked_fractions(fractions)
    if len(clusters) != len(identities):
        raise InternalError(f"expected one identity per document, got {len(identities)} for {len(clusters)}")
    cluster_of = _joined_by_identity(clusters, identities)
    members: dict[int, list[str]] = {}
    for cluster, identity in zip(cluster_of, identities, strict=True):
        members.setdefault(cluster, []).append(identity)

    def turn(cluster: int) -> tuple[int, int, str]:
        least = min(members[cluster])
        draw = int(xxhash.xxh3_64_intdigest(least.encode("utf-8", "surrogatepass"), seed=seed & (2**64 - 1)))
        return -len(members[cluster]), draw, least

    filled = dict.fromkeys(shares, 0)
    split_of: dict[int, str] = {}
    for cluster in sorted(members, key=turn):
        size = len(members[cluster])
        # Python's min keeps the first of equals: the order in which the fractions were given.
        chosen = min(shares, key=lambda name: (filled[name] + size / 2) / shares[name])
        filled[chosen] += size
        split_of[cluster] = chosen
    return [split_of[cluster] for cluster in cluster_of]


def _joined_by_identity(clusters: Sequence[int], identities: Sequence[str]) -> list[int]:
    """Return clusters such that equal identities share one."""
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    parent = np.arange(len(places), dtype=np.int64)
    home: dict[str, int] = {}
    for cluster, identity in zip(clusters, identities, strict=True):
        place = places[cluster]
        a, b = root_of(parent, place), root_of(parent, home.setdefault(identity, place))
        parent[max(a, b)] = min(a, b)
    return [root_of(parent, places[cluster]) for cluster in clusters]


def _checked_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    """Return the fractions above 0; ConfigError unless names can be file names and the sum is 1."""
    for name, fraction in fractions.items():
        if not _NAME.match(name):
            raise ConfigError(
                f"fractions: expected names of lower-case letters, digits and _, got {name!r}; "
                f"a split is written to a file of its name"
            )
        if not 0.0 <= fraction <= 1.0:
            raise ConfigError(f"fractions.{name}: expected a number from 0 to 1, got {fraction!r}")
    total = sum(fractions.values())
    if abs(total - 1.0) > 1e-9:
        asked = ", ".join(f"{name} {fraction:g}" for name, fraction in fractions.items())
        raise ConfigError(f"fractions: expected a sum of 1, got {total:g} ({asked or 'none'})")
    return {name: fraction for name, fraction in fractions.items() if fraction > 0}


# ---------------------------------------------------------------------------------------------------------
# Files


@dataclass(frozen=True)
class SplitPart:
    """One split as it was written: `fraction` is of the rows, realised; `content` is xxh3_128 of the file."""

    path: Path
    rows: int
    clusters: int
    fraction: float
    content: str


@dataclass(frozen=True)
class SplitReport:
    """What `split_file` did; `str()` of it is a few lines for a person."""

    out: Path
    rows: int
    clusters: int
    largest_cluster: int
    largest_jaccard_between: float
    threshold: float
    seed: int
    splits: Mapping[str, SplitPart]

    def __str__(self) -> str:
        together = self.rows - self.clusters
        lines = [f"{self.rows:,} documents, {self.clusters:,} clusters ({together:,} near-duplicates joined)"]
        for name, part in self.splits.items():
            lines.append(f"  {name:<8} {part.rows:>8,} rows  {part.fraction:6.1%}  {part.path}")
        lines.append(
            f"largest Jaccard index between splits: {self.largest_jaccard_between:.3f} "
            f"(below {self.threshold:g})"
        )
        return "\n".join(lines)


def split_file(
    paths: Sequence[Path],
    out: Path,
    *,
    text: str = "text",
    view: View = "all",
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    threshold: float = 0.5,
    seed: int = 0,
    shingle_words: int = 5,
    overwrite: bool = False,
) -> SplitReport:
    """Write `out`/guide, tuning and test from the rows of `paths`, near-duplicates together, and split.json.

    JSON lines (plain, gzip, zstd) are written as .jsonl, line for line as they were; everything else as one
    .parquet per split, with all columns. Rows keep the order of the input; a row's split depends on its text
    and the other texts, not on its place. `text` is a column, a template or a kind of instruction data, as in
    a recipe. Files appear under their names when they are complete, split.json last.

    Raises ConfigError for wrong words or files that are in the way (`overwrite=True` replaces them),
    DataError for rows that cannot be read or a target that cannot be cut (fewer clusters than splits).
    """
    check_threshold(threshold, shingle_words)
    shares = _checked_fractions(fractions)
    _check_inputs(paths)
    _check_outputs(out, fractions, overwrite)
    table = load_table([str(path) for path in paths], text=text, view=view)
    texts: list[str] = table.column(TEXT).to_pylist()
    clusters = near_duplicate_clusters(texts, threshold=threshold, shingle_words=shingle_words)
    identities = [xxhash.xxh3_128_hexdigest(t.encode("utf-8", "surrogatepass")) for t in texts]
    split_of = assign(clusters, identities, fractions=shares, seed=seed)
    _check_every_split_has_rows(shares, split_of, clusters, paths, threshold)
    nearest = largest_jaccard_between(texts, split_of, shingle_words=shingle_words)
    if nearest >= threshold:
        raise InternalError(
            f"expected splits below a Jaccard index of {threshold:g}, got {nearest:g}; report this"
        )

    rows_of = {name: [i for i, split in enumerate(split_of) if split == name] for name in shares}
    extension, write = _writer(paths, table)
    out.mkdir(parents=True, exist_ok=True)
    splits: dict[str, SplitPart] = {}
    temporary: dict[Path, Path] = {}
    try:
        for name, rows in rows_of.items():
            final = out / f"{name}{extension}"
            temporary[final] = out / f".{final.name}.{os.getpid()}.tmp"
            content = _write_synced(temporary[final], partial(write, rows=rows))
            kinds = len({clusters[i] for i in rows})
            splits[name] = SplitPart(final, len(rows), kinds, len(rows) / len(texts), content)
        sizes = np.unique(np.array(clusters), return_counts=True)[1]
        report = SplitReport(out, len(texts), len(sizes), int(sizes.max()), nearest, threshold, seed, splits)
        manifest = out / "split.json"
        temporary[manifest] = out / f".split.json.{os.getpid()}.tmp"
        words = {"text": text, "view": view, "shingle_words": shingle_words, "fractions": dict(shares)}
        facts = orjson.dumps(
            _facts(report, words, paths), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        )
        _write_synced(temporary[manifest], partial(_write_all, data=facts))
        _remove_earlier(out, fractions)
        for final, waiting in temporary.items():
            os.replace(waiting, final)
        _sync_folder(out)
    finally:
        for waiting in temporary.values():
            waiting.unlink(missing_ok=True)
    return report


def _check_inputs(paths: Sequence[Path]) -> None:
    if not paths:
        raise ConfigError("expected a target file to split, got none")
    for path in paths:
        if not path.is_file():
            what = "a folder; name its files" if path.is_dir() else "no such file"
            raise ConfigError(f"{path}: expected a file to split, got {what}")


def _outputs(out: Path, fractions: Mapping[str, float]) -> list[Path]:
    names = [f"{name}{extension}" for name in fractions for extension in (".jsonl", ".parquet")]
    return [out / name for name in ["split.json", *names]]


def _check_outputs(out: Path, fractions: Mapping[str, float], overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: expected a folder to write the splits to, got a file")
    present = [path.name for path in _outputs(out, fractions) if path.exists()]
    if present and not overwrite:
        raise ConfigError(
            f"{out}: expected no earlier split, got {', '.join(present)}; choose another folder, "
            f"or ask for overwriting (runs that used the old guide and test would no longer match)"
        )


def _check_every_split_has_rows(
    shares: Mapping[str, float],
    split_of: Sequence[str],
    clusters: Sequence[int],
    paths: Sequence[Path],
    threshold: float,
) -> None:
    empty = [name for name in shares if name not in set(split_of)]
    if empty:
        raise DataError(
            f"{', '.join(str(path) for path in paths)}: expected enough different documents to fill "
            f"{len(shares)} splits, got {len(clusters)} documents in {len(set(clusters))} clusters at "
            f"Jaccard >= {threshold:g}, which leaves {', '.join(empty)} empty; add documents, ask for fewer "
            f"splits, or raise the threshold"
        )


def _remove_earlier(out: Path, fractions: Mapping[str, float]) -> None:
    """Remove what an earlier split left, its split.json first: what it vouches for is about to change."""
    for path in _outputs(out, fractions):
        path.unlink(missing_ok=True)


def _is_json_lines(path: Path) -> bool:
    name = path.name.lower()
    for packing in (".gz", ".zst"):
        name = name.removesuffix(packing)
    return name.endswith((".jsonl", ".json", ".ndjson"))


def _writer(paths: Sequence[Path], table: pa.Table) -> tuple[str, Callable[..., None]]:
    """Return the extension of the splits and what writes the rows of the given numbers to a file."""
    if all(_is_json_lines(path) for path in paths):
        lines = [line for path in paths for line in _json_lines(path)]
        if len(lines) != table.num_rows:
            raise InternalError(
                f"expected {table.num_rows} lines as rows were read, got {len(lines)}; report this"
            )

        def write_lines(file: IO[bytes], rows: list[int]) -> None:
            file.writelines(lines[i] + b"\n" for i in rows)

        return ".jsonl", write_lines
    columns = table.drop_columns([TEXT])

    def write_table(file: IO[bytes], rows: list[int]) -> None:
        pq.write_table(columns.take(pa.array(rows, type=pa.int64())), file, compression="zstd")

    return ".parquet", write_table


def _json_lines(path: Path) -> list[bytes]:
    """Return the lines that hold a row, without their line ends; blank lines are none."""
    name = path.name.lower()
    data = path.read_bytes()
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    elif name.endswith(".zst"):
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as stream:
            data = stream.read()
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    return [line.removesuffix(b"\r") for line in data.split(b"\n") if line.strip()]


def _write_all(file: IO[bytes], data: bytes) -> None:
    file.write(data)


def _write_synced(path: Path, write: Callable[[IO[bytes]], None]) -> str:
    """Write a file and sync it to the disk; returns xxh3_128 of its content in hex."""
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    return _content(path)


def _content(path: Path) -> str:
    return str(xxhash.xxh3_128_hexdigest(path.read_bytes()))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _facts(report: SplitReport, words: Mapping[str, Any], paths: Sequence[Path]) -> dict[str, Any]:
    """Return split.json: no times and no folders, so that the same split has the same bytes anywhere."""
    return {
        "format_version": FORMAT_VERSION,
        "inputs": [{"file": path.name, "xxh3_128": _content(path)} for path in paths],
        **words,
        "threshold": report.threshold,
        "seed": report.seed,
        "rows": report.rows,
        "clusters": report.clusters,
        "largest_cluster": report.largest_cluster,
        "largest_jaccard_between_splits": report.largest_jaccard_between,
        "splits": {
            name: {
                "file": part.path.name,
                "rows": part.rows,
                "clusters": part.clusters,
                "fraction": part.fraction,
                "xxh3_128": part.content,
            }
            for name, part in report.splits.items()
        },
    }
