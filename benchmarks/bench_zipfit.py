"""Measure exact ZIP-FIT per core, beside plain Python with gzip and beside C that calls zlib with deflateReset.

    python benchmarks/bench_zipfit.py [--pool FOLDER_OF_PARQUET]... [--targets GUIDE.jsonl] [--documents 400]
        [--level 6] [--callgrind] [--json benchmarks/results/zipfit.json]

Without --pool the documents are pieces of Python's standard library and the targets are functions of it. Every length is
compared with zlib's before anything is timed. Microseconds of CPU per pair of document and target, one thread, the best of
five for ours and for C, one pass for Python; single lengths are cached for both peers. A pool is measured as it is and, as
`cut`, with documents of 1,000 characters or more cut to 2,000. --callgrind counts instructions with valgrind.
"""

from __future__ import annotations

import argparse
import ctypes
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from curate import deflate
from curate.deflate import Compressor

LEVELS = ("scalar", "avx2", "avx512")

# The fair rival: C, one deflate state for all pairs, the document copied once, nothing kept of the output.
RIVAL = """
#include <string.h>
#include <zlib.h>
long rival(const unsigned char *x, const long *xe, long n, const unsigned char *t, const long *te, long m, int level,
           unsigned char *joined, unsigned char *out, long room, long *lengths) {
    z_stream z;
    memset(&z, 0, sizeof z);
    if (deflateInit2(&z, level, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) != Z_OK) return -1;
    for (long i = 0; i < n; i++) {
        long size = xe[i + 1] - xe[i];
        memcpy(joined, x + xe[i], size);
        for (long j = 0; j < m; j++) {
            memcpy(joined + size, t + te[j], te[j + 1] - te[j]);
            deflateReset(&z);
            z.next_in = joined, z.avail_in = size + te[j + 1] - te[j], z.next_out = out, z.avail_out = room;
            if (deflate(&z, Z_FINISH) != Z_STREAM_END) return -1;
            *lengths++ = z.total_out;
        }
    }
    return deflateEnd(&z);
}
"""

COUNTED = """
import json, sys
import pyarrow as pa
from curate import deflate
texts, targets = json.load(open(sys.argv[1]))
deflate.joined(pa.array(texts), pa.array(targets), deflate.Compressor("gzip", int(sys.argv[2])))
"""


def own_library() -> tuple[list[str], list[str]]:
    """Pieces of the standard library of up to 2,000 characters, and 82 of about 350 as targets."""
    files = sorted(f for f in Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    source = "".join(f.read_text("utf-8", "ignore") for f in files)
    texts = [source[at : at + 2000] for at in range(0, 1_000_000, 2000)]
    return texts, [source[at : at + 350] for at in range(1_000_000, 1_000_000 + 82 * 20_000, 20_000)]


def read(pool: Path, documents: int, cut: bool) -> list[str]:
    texts = [t for t in ds.dataset(pool).to_table(columns=["text"])["text"].to_pylist() if t]
    if cut:
        texts = [t[:2000] for t in texts if len(t) >= 1000]
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:documents]]


def best(work: Callable[[], object], rounds: int = 5) -> float:
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def by_python(texts: list[bytes], targets: list[bytes], level: int) -> tuple[float, list[list[int]]]:
    """Seconds per pair of gzip.compress, and the lengths."""
    start = time.process_time()
    lengths = [[len(gzip.compress(x + t, level)) for t in targets] for x in texts]
    return (time.process_time() - start) / (len(texts) * len(targets)), lengths


def by_c(texts: list[bytes], targets: list[bytes], level: int) -> tuple[float, np.ndarray] | None:
    """Seconds per pair of C with zlib, and the lengths; None without a compiler and zlib's header."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "rival.c", Path(folder) / "rival.so"
        source.write_text(RIVAL)
        command = [
            os.environ.get("CC", "cc"),
            "-O3",
            "-shared",
            "-fPIC",
            str(source),
            "-o",
            str(library),
            "-lz",
        ]
        if subprocess.run(command, capture_output=True).returncode:
            return None
        rival = ctypes.CDLL(str(library)).rival
    rival.restype = ctypes.c_long
    ends = [np.cumsum([0, *map(len, side)]) for side in (texts, targets)]
    room = 2 * (max(map(len, texts)) + max(map(len, targets))) + 1000
    joined, out = ctypes.create_string_buffer(room), ctypes.create_string_buffer(room)
    lengths = np.zeros((len(texts), len(targets)), np.int64)
    data = [b"".join(texts), b"".join(targets)]

    def work() -> None:
        places = [e.ctypes.data_as(ctypes.c_void_p) for e in ends]
        failed = rival(data[0], places[0], ctypes.c_long(len(texts)), data[1], places[1], ctypes.c_long(len(targets)),
                       ctypes.c_int(level), joined, out, ctypes.c_long(room), lengths.ctypes.data_as(ctypes.c_void_p))  # fmt: skip
        if failed:
            raise SystemExit("zlib failed")

    return best(work) / lengths.size, lengths


def instructions(texts: list[str], targets: list[str], level: int) -> float | None:
    """Instructions per pair inside the kernel, the preparing of the targets among them."""
    if not shutil.which("valgrind"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample.json"
        sample.write_text(json.dumps([texts, targets]))
        command = [
            "valgrind",
            "--tool=callgrind",
            "--toggle-collect=zipfit_measure",
            "--callgrind-out-file=/dev/null",
        ]
        command += [sys.executable, "-c", COUNTED, str(sample), str(level)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    return round(int(found[1]) / (len(texts) * len(targets))) if found else None


def one(texts: list[str], targets: list[str], level: int, callgrind: bool) -> dict[str, Any]:
    """All figures for one pool."""
    x, t, gz = pa.array(texts, pa.large_string()), pa.array(targets), Compressor("gzip", level)
    raw, ends = [s.encode() for s in texts], [s.encode() for s in targets]
    _, pairs = deflate.joined(x, t, gz)
    python_seconds, expected = by_python(raw, ends, level)
    c = by_c(raw, ends, level)
    if deflate.stock_zlib() and pairs.tolist() != expected:
        raise SystemExit("the lengths are not Python's")
    if c is not None and deflate.stock_zlib() and (c[1] != pairs).any():
        raise SystemExit("the lengths are not zlib's")
    result: dict[str, Any] = {
        "documents": len(texts), "mean_bytes": round(sum(map(len, raw)) / len(raw)),
        "targets": len(targets), "mean_target_bytes": round(sum(map(len, ends)) / len(ends)),
        "python_us": round(python_seconds * 1e6, 2), "c_us": round(c[0] * 1e6, 2) if c else None, "us": {},
    }  # fmt: skip
    before = os.environ.get("CURATE_SIMD")
    for simd in LEVELS:
        os.environ["CURATE_SIMD"] = simd
        if (deflate.joined(x, t, gz)[1] != pairs).any():
            raise SystemExit("the variants do not agree")
        result["us"][simd] = round(best(lambda: deflate.joined(x, t, gz)) / pairs.size * 1e6, 3)
    os.environ.pop("CURATE_SIMD") if before is None else os.environ.update(CURATE_SIMD=before)
    result["times_python"] = {simd: round(result["python_us"] / us, 2) for simd, us in result["us"].items()}
    if c:
        result["times_c"] = {simd: round(result["c_us"] / us, 2) for simd, us in result["us"].items()}
    if callgrind:
        result["instructions_per_pair"] = instructions(texts[:60], targets, level)
    return result


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--pool", type=Path, action="append", default=[])
    words.add_argument("--targets", type=Path, action="append", default=[])
    words.add_argument("--documents", type=int, default=400)
    words.add_argument("--level", type=int, default=6)
    words.add_argument("--callgrind", action="store_true")
    words.add_argument("--json", type=Path)
    given = words.parse_args()
    texts, functions = own_library()
    pools = {"stdlib": texts[: given.documents]}
    for pool in given.pool:
        pools[pool.name] = read(pool, given.documents, cut=False)
        pools[f"{pool.name} cut"] = read(pool, given.documents, cut=True)
    guides = {file.stem: [json.loads(line)["text"] for line in file.open()] for file in given.targets} or {
        "stdlib": functions
    }
    result: dict[str, Any] = {
        "what": f"exact ZIP-FIT, gzip level {given.level}: microseconds of CPU per pair of document and target, one core",
        **measure.about(), "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "figures": {
            f"{pool} x {guide}": one(pools[pool], targets, given.level, given.callgrind)
            for guide, targets in guides.items()
            for pool in pools
            if pool != "stdlib" or guide == "stdlib"
        },
    }  # fmt: skip
    report = json.dumps(result, indent=1)
    print(report)
    if given.json:
        given.json.write_text(report + "\n", "utf-8")


if __name__ == "__main__":
    main()
