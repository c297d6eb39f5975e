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
    """All tables."""
    return "\n".join([*speeds(), "", *selections(), "", *nights(), "", *kernels(), "", *models()])


def nights() -> list[str]:
    """What was asked of a run that is started every night, and what was measured."""
    night, soak, fuzz, verify = result("nightly"), result("soak"), result("fuzz"), result("verify")
    files, groups = night["files"], night["row_groups"]
    read = sorted(set(files["one_file_added"]["documents_read_by_pass"].values()))
    rows = [
        ("random kills over two recipes, the same command again: results that differ from the undisturbed run's", "0 of 200",
         f"{soak['different']} of {soak['kills']}", soak),
        ("damaged parquet, jsonl, csv, gzip and zstd files: a traceback, a hang, a crash, or a row lost in silence", "0 of a few thousand",
         f"{len(fuzz['wrong'])} of {fuzz['cases']:,}", fuzz),
        (f"a run over {files['parts']:,} unchanged files, or one of {groups['parts']:,} row groups, CPU until it says that there is nothing to do", "under 2 s",
         f"{files['nothing_to_do_cpu_seconds']:.2f} s, {groups['nothing_to_do_cpu_seconds']:.2f} s", night),
        (f"one file of {files['one_file_added']['documents_in_it']} documents added, frozen state: documents read before emission", "that file's",
         f"{', '.join(str(n) for n in read)} in each pass ({files['one_file_added']['cpu_seconds']:.0f} s of CPU)", night),
        (f"`curate verify`, {verify['text_mb']:.0f} MB of text", "-", f"{verify['verify_seconds']:.1f} s ({verify['verify_mb_per_s']:.0f} MB/s of files)", verify),
    ]  # fmt: skip
    return table(rows)


def kernels() -> list[str]:
    """What was asked of compression and near-duplicates, and what was measured."""
    zipfit, fast, minhash = result("zipfit"), result("zipfit_fast"), result("minhash")
    held = {**result("decontaminate"), **result("decontaminate")["about"]}

    def span(values: list[float]) -> str:
        return f"{min(values):.1f} to {max(values):.1f} x by pool"

    figures = zipfit["figures"].values()
    guides = fast["guides"]
    best = minhash["mb_per_cpu_second"]
    recall = [pool["recall"] for pool in minhash["judged"].values()]
    rows = [
        ("exact ZIP-FIT over plain Python with zlib, portable C", "at least 7 x", span([f["times_python"]["scalar"] for f in figures]), zipfit),
        ("the same with AVX-512", "at least 9 x", span([f["times_python"]["avx512"] for f in figures]), zipfit),
        ("exact ZIP-FIT over C calling zlib, portable; AVX-512", "3 x; 4 x",
         f"{span([f['times_c']['scalar'] for f in figures])}; {span([f['times_c']['avx512'] for f in figures])}", zipfit),
        ("`zipfit_fast`, MB/s at 82 and at 1,000 targets", "30, the same at both",
         f"{fast['speed']['82_targets']['together_mb_per_s']:.0f}, {fast['speed']['1000_targets']['together_mb_per_s']:.0f}", fast),
        ("`zipfit_fast` against exact, Spearman of the scores that were not rescored: " + ", ".join(guides), "0.95",
         ", ".join(f"{g['rank_correlation_of_fitted']:.2f}" for g in guides.values()), fast),
        ("MinHash signatures from raw text, 128 permutations, AVX2; AVX-512, MB per CPU second", "500; 650",
         f"{best['native']['avx2']:.0f}; {best['native']['avx512']:.0f}", minhash),
        ("the same, permutations of 61 bits and the fast hash", "200; 280",
         f"{best['legacy permutations, fast hash']['avx2']:.0f}; {best['legacy permutations, fast hash']['avx512']:.0f}", minhash),
        ("whole MinHash de-duplication over datasketch's, 1 million documents; 52 MB of web pages", "40 x",
         f"{minhash['million']['a million documents']['times_datasketch']:.0f} x; {minhash['whole']['times_datasketch']:.0f} x", minhash),
        ("the same in MB per CPU second", "30",
         f"{minhash['million']['a million documents']['mb_per_cpu_second']:.0f}; {minhash['whole']['mb_per_cpu_second']:.0f}", minhash),
        ("recall of pairs at Jaccard 0.8 against brute force; pairs joined that are not near", "0.97; 0",
         f"{min(recall):.2f}; {sum(pool['clusters_that_pairs_at_0.7_do_not_join'] for pool in minhash['judged'].values())}", minhash),
        ("largest process, 1 million documents; with 100,000 copies of one text", "2 GB",
         "; ".join(f"{minhash['million'][name]['largest_process_mb'] / 1e3:.1f} GB" for name in minhash["million"]), minhash),
        (f"`decontaminate` against brute force on {held['brute_force']['documents']:,} documents: recall of pairs; pairs that are not real", "0.97; 0",
         f"{held['brute_force']['recall']:.2f}; {held['brute_force']['pairs_that_are_not_real']}", held),
        ("planted items that are not found: " + ", ".join(held["planted"]), "0",
         ", ".join(str(kind["planted"] - kind["found"]) for kind in held["planted"].values()) + f" of {held['planted']['verbatim']['planted']:,} each", held),
        ("its two passes (rarity, then the documents), MB per CPU second each", "-",
         f"{held['count_mb_per_cpu_second']:.0f}, {held['match_mb_per_cpu_second']:.0f}", held),
    ]  # fmt: skip
    return table(rows)


def table(rows: list[tuple[str, str, str, dict[str, Any]]]) -> list[str]:
    """Figures with what was asked, and the machine, as Markdown."""
    lines = ["| figure | asked | measured | commit |", "|---|---|---|---|"]
    lines += [f"| {what} | {asked} | {measured} | {source['commit'][:12]} |" for what, asked, measured, source in rows]
    machines = sorted({f"{source['machine']}, {source['processors']} shared processors" for *_, source in rows if "machine" in source})
    return [*lines, "", f"Machine: {'; '.join(machines)}; medians, peers in the same run."]


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
    return table(rows)


def models() -> list[str]:
    """What was asked of languages, meaning, training and scoring by models, and what was measured."""
    languages, scoring, training = ({**found, **found["about"]} for found in map(result, ("langid", "lm", "train")))
    meaning = result("semdedup")
    ours = training["found"]["curate"]["tokens_per_second"]
    padded, packed = (training["found"][f"Trainer, {how}"]["tokens_per_second"] for how in ("padded", "packed"))
    agreement = languages["agreement"]
    rows = [
        (f"`language` over py3langid's own loop; labels of {agreement['documents']:,} documents that differ", "identical",
         f"{languages['times_the_library']:.1f} x ({languages['mb_per_second']:.0f} MB/s); {agreement['labels_that_differ']}", languages),
        (f"SemDeDup, {meaning['documents']:,} x {meaning['dim']}, over FAISS's k-means and the bare products, CPU; peak memory", "1.3 x; 2 GB",
         f"{meaning['ratio_median']:.2f} x; {meaning['peak_mb'] / 1000:.1f} GB", meaning),
        (f"`curate train` on one core, {training['parameters'] / 1e6:.0f} million parameters, non-padding tokens a second: over transformers.Trainer padded; packed", "1.3 x",
         f"{ours / padded:.1f} x; {ours / packed:.2f} x", training),
        (f"`lm` scoring, {scoring['parameters'] / 1e6:.0f} million parameters, over batches in the order of the file with padding", "1.5 x",
         f"{scoring['times']:.1f} x", scoring),
    ]  # fmt: skip
    return table(rows)


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
    return [*lines, "", f"The share of the right source is a sanity column: it misranks. Commit {found['commit']}.", "", *dear()]


def dear() -> list[str]:
    """What scorers that need a model choose from fewer documents, beside DSIR."""
    names = {"dsir": "DSIR", "rds": "RDS+ with all-MiniLM-L6-v2", "color_filter": "CoLoR-Filter, pair trained by the recipe"}
    rows, of = [], []
    for file in ("selection_rds", "selection_color"):
        if not (HERE / "results" / f"{file}.json").exists():
            continue
        found = result(file)
        of.append(found)
        rows += [row for row in found["rows"] if row["scorer"] != "dsir" or file == "selection_rds"]
    rows.sort(key=lambda row: (row["target"], list(names).index(row["scorer"])))
    lines = [
        f"The same for the 400 best of {of[0]['documents']:,} documents, for scorers that need a model:", "",
        "| target | by | right source in the top 400 | bits/byte on the test | less than random's mean, 95 % interval | verdict | seconds, model and all |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['target']} | {names[row['scorer']]} | {row['share_in_top']:.1%} | {row['bits_per_byte']:.3f} "
            f"| {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] | {row['verdict']} | {row['seconds']:.0f} |"
        )
    commits = ", ".join(sorted({found["commit"] for found in of}))
    return [*lines, "", f"Each by as many bytes as it chose, on shared processors under load; vectors of the second and third target came from the cache. Commit {commits}."]


if __name__ == "__main__":
    main()
