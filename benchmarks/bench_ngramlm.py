"""Measure the n-gram judge: training and judging on one core, memory, and the slow twin of the tests beside it.

    python benchmarks/bench_ngramlm.py [--pool FOLDER_OF_PARQUET] [--mb 50] [--json benchmarks/results/ngramlm.json]

Without --pool the text is the source of Python's standard library. MB are 10^6 bytes of UTF-8; times are CPU seconds
of one thread, the median of five. The twin must agree before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from curate.ngramlm import BYTE_ORDER, NgramLM

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from test_ngramlm import TwinLM  # noqa: E402

ROUNDS = 5


def read(pool: Path | None, limit_bytes: int) -> list[str]:
    """Documents of at most `limit_bytes` in all, in a fixed shuffled order."""
    if pool is None:
        files = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
        texts = [file.read_text("utf-8", "ignore") for file in files if "site-packages" not in file.parts]
    else:
        texts = ds.dataset(pool).to_table(columns=["text"])["text"].to_pylist()
    order = np.random.Generator(np.random.Philox(key=3)).permutation(len(texts))
    kept, total = [], 0
    for i in order:
        size = len((texts[i] or "").encode())
        if total + size <= limit_bytes:
            kept.append(texts[i] or "")
            total += size
    return kept


def size_of(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def seconds(work: Callable[[], object]) -> float:
    """Median CPU seconds of a call."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def peak_memory(path: str) -> int:
    """Bytes that training added to the peak of this process; run it in a fresh one."""
    with pa.memory_map(path) as source:
        texts = pa.ipc.open_file(source).read_all()["text"]
        before = high_water()
        NgramLM.train(texts)
        return high_water() - before


def high_water() -> int:
    """Most bytes this process ever held. Linux hands ru_maxrss on to a child, so its own line is read there."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_memory(texts: list[str]) -> int:
    path = ROOT / "benchmarks" / ".ngramlm.arrow"
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    try:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
        with multiprocessing.get_context("spawn").Pool(1) as workers:
            return workers.apply(peak_memory, (str(path),))
    finally:
        path.unlink(missing_ok=True)


def bench_twin(texts: list[str]) -> dict[str, float]:
    """Train and judge 100 kB with the kernel and with the twin of the tests, after checking that they agree."""
    few, total = [], 0
    for text in texts:
        if total + len(text.encode()) <= 100_000:
            few.append(text)
            total += len(text.encode())
    train, test = few[::2], few[1::2]
    start = time.process_time()
    twin = TwinLM([text.encode() for text in train], 3)
    expected = [twin.bits(text.encode()) for text in test]
    of_twin = time.process_time() - start
    got = NgramLM.train(pa.array(train, pa.string())).bits(pa.array(test, pa.string()))
    worst = float(np.max(np.abs(got - expected) / expected))
    if worst > 1e-10:
        raise SystemExit(
            f"expected the kernel to agree with the twin within 1e-10, got a difference of {worst}"
        )
    of_kernel = seconds(lambda: NgramLM.train(pa.array(train, pa.string())).bits(pa.array(test, pa.string())))
    return {
        "bytes": float(total),
        "largest_relative_difference": worst,
        "twin_cpu_seconds": of_twin,
        "kernel_cpu_seconds": of_kernel,
        "ratio": of_twin / of_kernel,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, help="folder of parquet files with a text column")
    parser.add_argument("--mb", type=float, default=50.0, help="MB of training text, at most")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    texts = read(args.pool, int(args.mb * 1e6))
    held_out = max(1, len(texts) // 50)
    test, train = texts[:held_out], texts[held_out:]
    train_array, test_array = pa.array(train, pa.large_string()), pa.array(test, pa.large_string())
    result: dict[str, object] = {"twin": bench_twin(texts)}
    model = NgramLM.train(train_array)
    training = seconds(lambda: NgramLM.train(train_array))
    judging = seconds(lambda: model.bits(test_array))
    added = measure_memory(train)
    result["machine"] = {
        "processor": processor(),
        "python": platform.python_version(),
        "system": platform.system(),
    }
    result["commit"] = commit()
    result["text"] = {
        "documents": len(train),
        "bytes": size_of(train),
        "pool": args.pool.name if args.pool else "stdlib",
    }
    result["model"] = {
        "order": model.order,
        "byte_order": BYTE_ORDER,
        "tokens": model.tokens,
        "types": model.types,
        "bytes": model.nbytes,
        "bits_per_byte_held_out": float(model.bits(test_array).sum() / size_of(test)),
    }
    result["train_mb_per_cpu_second"] = size_of(train) / 1e6 / training
    result["judge_mb_per_cpu_second"] = size_of(test) / 1e6 / judging
    result["training_memory_bytes"] = added
    result["training_memory_over_text"] = added / size_of(train)
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def processor() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0].split(":")[1].strip() if names else platform.processor()


def commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


if __name__ == "__main__":
    main()
