"""Write the README's tables of measured numbers from benchmarks/results, so that no number there is typed by hand.

    python benchmarks/table.py            # rewrite README.md between the markers
    python benchmarks/table.py --check    # exit 1 where it differs
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def main() -> None:
    """Rewrite or check."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = f"{before}{BEGIN}\n{render()}\n{END}{after}"
    if "--check" in sys.argv:
        sys.exit(0 if wanted == text else "README.md differs from benchmarks/results: run python benchmarks/table.py")
    README.write_text(wanted, encoding="utf-8")


def result(name: str) -> dict[str, Any]:
    """One bench's result."""
    return json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def render() -> str:
    """Both tables."""
    return "\n".join([*speeds(), "", *selections()])


def speeds() -> list[str]:
    """What was asked of the first step, and what was measured."""
    kernels, run, startup = result("ngrams"), result("run"), result("startup")
    same = kernels["same_text"]
    rows = [
        ("DSIR kernel, default hash, over data-selection's featuriser, CPU per core", "at least 150 x",
         f"{same['times_the_peer']['score_mix64']:.0f} x ({same['mb_per_cpu_second']['score_mix64']:.0f} MB/s)", kernels),
        ("the same with sha256, the reference's own numbers", "at least 25 x",
         f"{same['times_the_peer']['score_sha256']:.0f} x ({same['mb_per_cpu_second']['score_sha256']:.0f} MB/s)", kernels),
        (f"`curate run`, {run['text_mb']:.0f} MB, 2 workers, over reading the text column twice with pyarrow on 2 threads", "within 5 x",
         f"{run['run_over_read_twice']:.1f} x ({run['run_seconds']:.1f} s, {run['run_mb_per_s']:.0f} MB/s)", run),
        ("the same, over data-selection end to end with num_proc=2", "at least 40 x", f"{run['run_over_peer']:.0f} x", run),
        ("peak resident memory of a worker of that run", "under 500 MB", f"{run['worker_peak_mb']:.0f} MB", run),
        (f"... with {run['big_text_mb'] / 1e3:.1f} GB of text", "the same within 10 %",
         f"{run['big_worker_peak_mb']:.0f} MB ({run['big_over_small_peak']:.2f} x)", run),
        ("the demo, after installation", "under 60 s", f"{startup['demo_seconds']:.0f} s", startup),
        ("`curate --help`, CPU", "under 0.3 s", f"{startup['help_cpu_seconds']:.2f} s", startup),
        ("`curate sql`, CPU", "under 0.5 s", f"{startup['sql_cpu_seconds']:.2f} s", startup),
    ]  # fmt: skip
    lines = ["| figure | asked | measured | commit |", "|---|---|---|---|"]
    lines += [f"| {what} | {asked} | {measured} | {source['commit']} |" for what, asked, measured, source in rows]
    return [*lines, "", f"Machine: {run['machine']}, {run['processors']} shared processors; medians, peers in the same run."]


def selections() -> list[str]:
    """What DSIR chooses for guides of three kinds, beside random."""
    found = result("selection")
    lines = [
        "| target | right source in the top 2,000 (in the pool) | bits/byte on the test | random draws | difference, 95 % interval | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['target']} | {row['share_in_top']:.1%} ({row['share_in_pool']:.1%}) | {row['bits_per_byte']:.3f} "
            f"| {row['random_bits_per_byte']:.3f} (sd {row['random_sd']:.3f}) | {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] | {row['verdict']} |"
        )
    return [*lines, "", f"The share of the right source is a sanity column: it misranks. Commit {found['commit']}."]


if __name__ == "__main__":
    main()
