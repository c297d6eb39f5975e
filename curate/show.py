"""How results look on a terminal. The only module, with the command line, that writes anywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pyarrow as pa
from msgspec import structs

from curate.events import Listener

if TYPE_CHECKING:
    from curate.api import Result
    from curate.catalog import OpenRun
    from curate.checks import Report
    from curate.clusters import Cluster
    from curate.comparison import Comparison
    from curate.diff import Diff
    from curate.funnel import Example
    from curate.outcome import Outcome
    from curate.pipelines.leakage import Leakage
    from curate.pipelines.tokenize import Tokenized
    from curate.prune import Pruned
    from curate.removal import Taken
    from curate.training import Trained

MOVED_SHOWN = 20  # kinds of changed fates that a diff prints
NEAR_SHOWN = 20  # near-duplicates that a takedown prints
HEAD = 600  # characters of a document's text that `explain` shows
FAULTS = 20  # how many `verify` shows


@contextmanager
def listener(json_log: bool, quiet: bool) -> Iterator[Listener | None]:
    """Who hears a run's events: JSON lines, a live line on a terminal, plain lines otherwise, or nobody."""
    if json_log:
        yield _json_lines
    elif quiet:
        yield None
    elif sys.stderr.isatty():
        with _live() as listen:
            yield listen
    else:
        yield _plain


def _json_lines(event: dict[str, Any]) -> None:
    import msgspec

    _say(msgspec.json.encode(event).decode())


def _plain(event: dict[str, Any]) -> None:
    line = _line(event)
    if line:
        _say(line)


def _say(line: str) -> None:
    """Print a line of the log; a run whose log nobody takes (a closed pipe, a full disk) goes on without."""
    try:
        click.echo(line, err=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _line(event: dict[str, Any]) -> str | None:
    """One event as a line; None for those that only move a progress bar."""
    if event["event"] == "phase":
        seconds = event["seconds"]
        done = f", {event['documents']:,} documents" if event["documents"] else ""
        rate = event["bytes"] / 1e6 / seconds if seconds else 0.0
        speed = f", {rate:,.{0 if rate >= 10 else 1}f} MB/s" if event["documents"] and event["bytes"] and seconds else ""
        return f"{event['phase']}: {seconds:.2f} s{done}{speed}"
    if event["event"] in ("note", "warning"):
        text = event["text"]
        return text if event["event"] == "note" or "warning:" in text else f"warning: {text}"
    if event["event"] == "step":
        return _step(event)
    if event["event"] == "resumed":
        return f"train: goes on after step {event['step']:,} of {event['steps']:,}"
    if event["event"] == "started":
        return f"{event['recipe']}: {event['parts']} parts, about {event['bytes'] / 1e6:,.1f} MB, {event['workers']} workers"
    return None


def _step(event: dict[str, Any]) -> str | None:
    """A training's step: of each power of two at the beginning, then of every hundredth, and the last."""
    step, steps = event["step"], event["steps"]
    if step != steps and step % 100 and (step > 100 or step & (step - 1)):
        return None
    loss = f"{event['loss']:.4f}" if event["loss"] is not None else "no label"
    bits = f", {event['bits_per_byte']:.4f} bits/byte" if event["bits_per_byte"] is not None else ""
    used = f", MFU {event['mfu']:.1%}" if event["mfu"] is not None else ""
    speed = f"{event['tokens_per_second']:,.0f} tokens/s{used}, {event['peak_bytes'] / 1e9:.2f} GB"
    return f"train: step {step:,} of {steps:,}: loss {loss}{bits}, {speed}, {event['seconds_left']:,.0f} s left"


@contextmanager
def _live() -> Iterator[Listener]:
    """A progress line with documents, MB/s and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:.40}"),
        BarColumn(),
        TextColumn("{task.fields[documents]:,} documents"),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def listen(event: dict[str, Any]) -> None:
            if event["event"] == "progress":
                name = event["phase"]
                if name not in tasks:
                    tasks[name] = progress.add_task(name, total=event["total"] or None, documents=0)
                progress.update(tasks[name], completed=event["bytes"], documents=event["documents"])
                return
            if event["event"] == "phase" and event["phase"] in tasks:
                progress.remove_task(tasks.pop(event["phase"]))
            line = _line(event)
            if line:
                console.print(line, highlight=False, markup=False, soft_wrap=True)

        yield listen


@contextmanager
def downloading(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar of bytes on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda size, whole: progress.update(task, completed=size, total=whole or None)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[int] = ()) -> str:
    """A plain table; the columns numbered in `right` are flush right."""
    cells = [[str(h) for h in header], *[["" if c is None else str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def summary(result: Result) -> str:
    """The funnel, what was published and what was said."""
    from curate.pipelines.card import by_stage
    from curate.store import read_table

    funnel = by_stage(read_table(result.folder / "funnel.parquet").to_pylist())
    rows = [(stage, reason, f"{n:,}", f"{size / 1e6:,.2f}") for stage, reason, n, size in funnel]
    o = result.outcome
    total = sum(n for _, _, n, _ in funnel)
    lines = [
        table(
            ("stage", "reason", "documents", "MB"),
            [*rows, ("read", "", f"{total:,}", f"{o.text_bytes / 1e6:,.2f}")],
            right=(2, 3),
        )
    ]
    what = "nothing to do" if o.unchanged else f"{_parts(o.computed_parts)} read" if o.computed_parts else "no text read"
    rows_out = o.rows
    often = f", published in {rows_out:,} rows" if rows_out is not None and rows_out != o.kept else ""
    lines.append(f"\n{o.kept:,} of {o.documents:,} documents kept{often}; {what}; {o.seconds:.1f} s")
    lines += work(o)
    if o.published:
        lines.append(f"published: {o.folder / 'mixture'} -> {o.published.name}")
    lines.append(f'ask: curate sql {o.folder} "SELECT * FROM funnel"')
    return "\n".join(lines)


def work(outcome: Outcome) -> list[str]:
    """What had become of the parts, and what was fitted and finished anew; a line each, none where there was nothing to do."""
    if outcome.unchanged:
        return [f"{_parts(outcome.parts.unchanged)} unchanged"]
    changes = [f"{count:,} {what}" for what, count in structs.asdict(outcome.parts).items() if count]
    states = {"fitted": "fitted", "reused": "fit reused", "frozen": "frozen"}
    fits = [f"{w.label} {states[w.state]}" + (f" ({_parts(w.fitted)} counted)" if w.fitted else "") for w in outcome.stages if w.state]
    ends = [f"{w.label} {w.finish}" for w in outcome.stages if w.finish]
    told = (("parts", changes), ("refit", fits), ("finish", ends))
    return [f"{name}: {', '.join(words)}" for name, words in told if words]


def _parts(count: int) -> str:
    return f"{count:,} part" + ("" if count == 1 else "s")


def training(found: Trained) -> str:
    """Where the model is, and the figures of its training."""
    rows = [
        ("loss (nats a token)", f"{found.loss:.4f}" if found.loss is not None else None),
        ("bits/byte", f"{found.bits_per_byte:.4f}" if found.bits_per_byte is not None else None),
        ("forgetting (nats a token)", f"{found.forgetting:.4f}" if found.forgetting is not None else None),
        ("steps", f"{found.steps:,}"),
        ("tokens", f"{found.tokens:,}"),
        ("tokens/s", f"{found.tokens_per_second:,.0f}" if found.tokens_per_second is not None else None),
        ("MFU", f"{found.mfu:.1%}" if found.mfu is not None else None),
        ("memory (GB)", f"{found.peak_bytes / 1e9:.2f}"),
        ("precision", found.precision),
        ("device", found.device),
        ("model", str(found.model)),
    ]
    return "\n".join(f"{name:<26} {value}" for name, value in rows if value is not None)


def tokens(found: Tokenized) -> str:
    """Where the shards are, how full they are, and the tokens to a byte of each source."""
    told = found.manifest
    counts = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in told.counts.items() if n)
    lines = [
        f"{told.sequences:,} sequences of {told.sequence_length:,}: {told.tokens:,} tokens, {told.efficiency:.2%} of all places; {told.learned:,} to be learned",
        f"documents: {counts or 'none'}",
    ]
    for source in told.sources:
        rate = f"{source.tokens / source.bytes:.4f}" if source.bytes else "-"
        lines.append(f"{source.source or '(no source)'}: {source.documents:,} documents, {source.tokens:,} tokens, {rate} tokens/byte")
    return "\n".join([*lines, f"{found.folder}{'' if found.new else ' (was there)'}"])


def comparison(found: Comparison) -> str:
    """The verdicts with their numbers."""
    lines = []
    for item in found.targets:
        v = item.verdict
        rows = [(a.name, f"{a.documents:,}", f"{a.bytes / 1e6:,.3f}", f"{a.bits_per_byte:.4f}") for a in item.arms]
        lines += [
            f"target {item.target}: judge {found.judge}, arms of at most {found.budget_bytes / 1e6:,.3f} MB, bits per byte of the test (smaller is better)",
            table(("arm", "documents", "MB", "bits/byte"), rows, right=(1, 2, 3)),
        ]
        first = next(iter(item.verdicts))
        # of an arm that was drawn several times; its mean varies less than a lone arm, so a smaller difference shows
        drawn = {name: sum(a.name.startswith(f"{name} ") for a in item.arms) for name in item.verdicts}
        for name, one in item.verdicts.items():
            told = f"the mean of {drawn[name]} draws of {name} is" if drawn[name] else f"the {name} is" if name == first == "selection" else f"{name} is"
            begin = f"random draws: mean {v.random_bits_per_byte:.4f}, sd {v.random_sd:.4f}; " if name == first else ""
            more = f", p {one.adjusted_p_value:.2g} with the other arms" if len(item.verdicts) > 1 else ""
            lines.append(f"{begin}{told} {one.difference:+.4f} bits/byte better than their mean, {one.confidence:.0%} interval [{one.low:+.4f}, {one.high:+.4f}]{more}")
        lines.append(
            f"KL reduction (nats, a diagnostic, no judge): {first} {item.kl.selection:+.4f}; 20 random subsets with as many n-grams "
            f"{item.kl.random_mean:+.4f} [{item.kl.random_least:+.4f}, {item.kl.random_most:+.4f}]"
        )
        for name, one in item.verdicts.items():
            what = item.target if len(item.verdicts) == 1 else f"{item.target}, {name}{' (the mean of its draws)' if drawn[name] else ''}"
            word = one.word + ("" if one.word == "no difference shown" else " than random")
            lines.append(f"verdict for {what}: {word if item.primary else 'none, this target is not the primary one'}")
        lines.append("")
    cut = {name: size for name, size in found.arm_bytes.items() if size > found.budget_bytes}
    if len(found.arm_bytes) > 1 and cut:
        lines.append(f"judged on a seeded sample of {found.budget_bytes:,} bytes: " + ", ".join(f"{name} (chose {size:,})" for name, size in cut.items()))
    lines.append(f"choosing took {found.selection_seconds:.1f} s, judging {found.judge_seconds:.1f} s")
    return "\n".join(lines)


def diff(found: Diff) -> str:
    """Two runs beside each other."""
    from curate.diff import QUANTILES

    told = found.summary()
    lines = [f"a: {told['runs']['a']}", f"b: {told['runs']['b']}", ""]
    if told["recipe"]:
        lines += [table(("setting", "a", "b"), [[r["setting"], _setting(r["a"]), _setting(r["b"])] for r in told["recipe"]]), ""]
    else:
        lines += ["the recipes resolve to the same settings and versions", ""]
    lines.append("input files: " + ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in told["inputs"].items() if n))
    for side, count in told["repeated"].items():
        if count:
            lines.append(f"{count:,} identities stand several times in {side}; their copies are paired one by one")
    if told["documents"] and not told["in_common"]:
        lines.append("the runs have no identity in common: do both recipes name the same id column?")
    lines += ["", _rows(told["documents"]), ""]
    if told["moved"]:
        shown = [{**row, "a_reason": _brief(row["a_reason"]), "b_reason": _brief(row["b_reason"])} for row in told["moved"][:MOVED_SHOWN]]
        lines += ["documents with another fate:", _rows(shown)]
        if len(told["moved"]) > MOVED_SHOWN:
            lines.append(f"... and {len(told['moved']) - MOVED_SHOWN} more kinds: --format json has all")
        lines.append("")
    if any(row["source"] is not None for row in told["sources"]):
        lines += [_rows(told["sources"]), ""]
    lengths = told["lengths"]
    lines += [_rows([{"kept": side, **{n: lengths[side][n] for n in ("documents", "bytes", "words")}} for side in ("a", "b")]), ""]
    header = ("quantiles of the kept", *(f"{q:.0%}" for q in QUANTILES))
    rows = [[f"{side} {what}", *map(_cell, lengths[side][f"{what}_quantiles"])] for what in ("bytes", "words") for side in ("a", "b")]
    for name, score in told["scores"].items():
        rows += [[f"{side} {name}", *map(_cell, score["kept_quantiles"][side])] for side in ("a", "b")]
    lines.append(table(header, rows, right=range(1, len(header))))
    for name, score in told["scores"].items():
        most = f", by {score['most']:.6g} at most" if score["changed"] else ""
        lines.append(f"{name}: of {score['in_both']:,} documents that both scored, {score['changed']:,} have another score{most}")
    return "\n".join(lines)


def diff_json(found: Diff) -> str:
    """The same, as one JSON object."""
    import orjson

    from curate.diff import QUANTILES

    return orjson.dumps({**found.summary(), "quantiles": list(QUANTILES)}, option=orjson.OPT_INDENT_2, default=str).decode()


def _rows(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of one kind as a table, numbers flush right."""
    if not rows:
        return ""
    header = list(rows[0])
    right = [i for i, name in enumerate(header) if all(isinstance(row[name], int) for row in rows)]
    return table(header, [[f"{v:,}" if isinstance(v, int) else _cell(v) for v in row.values()] for row in rows], right=right)


def _setting(value: Any) -> str:
    import orjson

    return "-" if value is None else _cell(value if isinstance(value, str) else orjson.dumps(value, default=str).decode())


def _brief(reason: str | None) -> str | None:
    return reason if reason is None or len(reason) <= 50 else reason[:47] + "..."


def taken(done: Taken, folder: str) -> str:
    """What a takedown did, or would do."""
    from curate.takedown import MODELS

    would = "would be " if done.dry_run else ""
    equal = done.documents.num_rows - sum(done.documents["named"].to_pylist())
    lines = [f"{done.documents.num_rows:,} documents of the pool {'would be' if done.dry_run else 'are'} taken down: "
             f"{done.documents.num_rows - equal:,} named, {equal:,} more whose text equals one of theirs"]  # fmt: skip
    if done.missing:
        lines.append(f"{len(done.missing):,} ids are of no document known here; documents with these ids {'would be' if done.dry_run else 'are'} kept out from now on")
    for name, count in done.publications.items():
        lines.append(f"publication {name}: {count:,} of them; {would}removed")
    if not done.publications:
        lines.append("no publication held any of them")
    for item in done.fitted:
        if item.label.startswith(MODELS):
            lines.append(f"{item.label}: this model was trained on {item.documents:,} of them; it stays as it is: remove it, and train again")
            continue
        what = "it stays as it is, for the stage is frozen: remove frozen/" + item.label + ".json and run again to fit without them" if item.frozen else f"{would}fitted again without them"
        lines.append(f"{item.label}: the state {item.state[:8]} was fitted on {item.documents:,} of them ({', '.join(item.files)}); {what}")
    for place, count in done.targets.items():
        lines.append(f"{count:,} of their texts stand in the {place} too, in a file of yours: remove them there")
    assert done.near is not None
    lines.append(f"{done.near.num_rows:,} documents are near-duplicates of them (Jaccard index of word 5-grams of 0.8 or more); they stay, unless you take them down too")
    if done.near.num_rows:
        rows = [[_cell(v) for v in row.values()] for row in done.near.slice(0, NEAR_SHOWN).to_pylist()]
        lines.append(table(done.near.schema.names, rows, right=(1,)))
        if done.near.num_rows > NEAR_SHOWN:
            lines.append(f"... and {done.near.num_rows - NEAR_SHOWN:,} more: --near FILE writes all")
    if done.unread:
        lines.append(f"{done.unread:,} texts are no longer in the pool; near-duplicates of these could not be looked for")
    if not done.dry_run:
        lines.append("no publication and no table of the run holds any of them now; every later run of the folder leaves them out")
        if done.published:
            lines.append(f"published: {folder}/mixture -> {done.published.name}")
    return "\n".join(lines)


def taken_json(done: Taken) -> str:
    """The same, as one JSON object."""
    import orjson

    documents = [{**row, "hash": row["hash"].hex() if row["hash"] else None} for row in done.documents.to_pylist()]
    return orjson.dumps(
        {"dry_run": done.dry_run, "missing": done.missing, "documents": documents, "publications": done.publications,
         "fitted": [{"label": f.label, "state": f.state, "documents": f.documents, "files": f.files, "frozen": f.frozen} for f in done.fitted],
         "targets": done.targets, "near": done.near.to_pylist() if done.near is not None else [], "unread": done.unread,
         "published": done.published.name if done.published else None},
        option=orjson.OPT_INDENT_2,
    ).decode()  # fmt: skip


def estimate(found: dict[str, Any]) -> str:
    """What `curate check` found."""
    return "\n".join(f"{name:<22} {value}" for name, value in found.items())


def write_table(found: pa.Table, form: str, out: str | None) -> None:
    """Print or write a query's result."""
    if form == "table":
        text = table(found.schema.names, [[_cell(v) for v in row.values()] for row in found.to_pylist()],
                     right=[i for i, f in enumerate(found.schema) if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]) + "\n"  # fmt: skip
        _put(text.encode(), out)
    elif form == "csv":
        import pyarrow.csv as csv

        sink = pa.BufferOutputStream()
        flat = [
            c.cast(pa.string()) if pa.types.is_nested(c.type) is False and pa.types.is_null(c.type) else c
            for c in found.columns
        ]
        csv.write_csv(
            pa.table(_flat(flat), found.schema.names), sink, csv.WriteOptions(quoting_style="needed")
        )
        _put(sink.getvalue().to_pybytes(), out)
    elif form == "json":
        import orjson

        _put(
            b"".join(
                orjson.dumps(row, default=str, option=orjson.OPT_APPEND_NEWLINE) for row in found.to_pylist()
            ),
            out,
        )
    else:
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(found, sink, compression="zstd")
        _put(sink.getvalue().to_pybytes(), out)


def _flat(columns: list[Any]) -> list[Any]:
    """Nested and binary columns as text, for CSV."""
    import orjson

    def one(column: Any) -> Any:
        if pa.types.is_nested(column.type):
            return pa.array(
                [None if v is None else orjson.dumps(v, default=str).decode() for v in column.to_pylist()],
                pa.string(),
            )
        if pa.types.is_binary(column.type) or pa.types.is_fixed_size_binary(column.type):
            return pa.array([None if v is None else v.hex() for v in column.to_pylist()], pa.string())
        return column

    return [one(column) for column in columns]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value.hex() if isinstance(value, bytes) else str(value)
    text = text.replace("\n", "\\n").replace("\t", "\\t")
    return text if len(text) <= 100 else text[:97] + "..."


def _put(content: bytes, out: str | None) -> None:
    if out is not None:
        Path(out).write_bytes(content)
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def explanation(document: dict[str, Any]) -> str:
    """One document's life."""
    row = document["row"]
    ending = (
        "kept"
        if row["curate_keep"]
        else f"dropped by {row['curate_drop_stage']}: {row['curate_drop_reason']}"
    )
    lines = [f"{row['curate_identity']}  {row['file']} row {row['row']}: {ending}"]
    for stage in document["stages"]:
        shown = ", ".join(
            f"{name} = {_cell(value)}" for name, value in stage["columns"].items() if value is not None
        )
        lines.append(f"  {stage['label']:<14} {stage['verdict'] or '-':<8} {shown}")
    text = document["text"] or ""
    lines += ["  text:", *["    " + line for line in text[:HEAD].splitlines()]]
    if len(text) > HEAD:
        lines.append(f"    ... ({len(text) - HEAD:,} more characters)")
    return "\n".join(lines)


def clusters(found: Sequence[Cluster]) -> str:
    """Clusters of near-duplicates, each with the document that stays and some that do not, and how these differ from it."""
    if not found:
        return "no document is near to another"
    blocks = []
    for cluster in found:
        lines = [f"{cluster.size:,} documents, {cluster.bytes:,} bytes: {cluster.identity}"]
        for member in cluster.members:
            index = "stays" if member.difference is None else "    -" if member.jaccard is None else f"{member.jaccard:.3f}"
            lines.append(f"  {index}  {member.identity}  {member.bytes:,} bytes  {member.file} row {member.row}")
            lines += [f"         {member.difference}"] if member.difference is not None else []
        if cluster.size > len(cluster.members):
            lines.append(f"  and {cluster.size - len(cluster.members):,} more")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def leakage(found: Leakage) -> str:
    """What of a test set stands in a training set, with examples."""
    what = {
        "exact": "a document's words are the item's", "near": f"a document holds {found.near_from:.0%} of the item or more", "part": "a 13-gram, or less than that",
        "meaning": f"a cosine of {found.similarity_from or 0:g} or more", "clean": f"{found.not_checkable:,} of them under 5 words: only equality was looked for",
    }  # fmt: skip
    kinds = [kind for kind in what if kind != "meaning" or found.similarity_from is not None]
    rows = [(kind, f"{getattr(found, kind):,}", f"{getattr(found, kind) / max(1, found.items):.1%}", what[kind]) for kind in kinds]
    lines = [f"{found.items:,} items held against {found.train_documents:,} documents: {found.share:.1%} found", "", table(("", "items", "share", ""), rows, right=(1, 2))]
    for example in found.examples:
        lines += ["", f"{example.kind} {example.share:.2f}: test row {example.test_row}, {example.train_file} row {example.train_row}",
                  f"  test    {_cell(example.test_text)}", f"  shared  {_cell(example.shared)}"]  # fmt: skip
    return "\n".join(lines)


def examples(found: Sequence[Example]) -> str:
    """Documents under the stage and the reason that they are examples of, each with the head of its text on a line."""
    lines: list[str] = []
    said: tuple[str, str | None] | None = None
    for example in found:
        if (example.stage, example.reason) != said:
            said = (example.stage, example.reason)
            lines += [*([""] if lines else []), f"{example.stage}: {example.reason}" if example.reason else example.stage]
        lines.append(f"  {example.identity}  {_cell(example.text or '')}")
    return "\n".join(lines)


def catalog(run: OpenRun) -> str:
    """Where the catalog is, and each view's columns."""
    lines = [f"{run.folder / 'catalog.duckdb'}", f"open it with: duckdb {run.folder / 'catalog.duckdb'}", ""]
    with run.connection(texts=True) as con:
        for view in ("docs", "selected", "funnel", "stages", "parts", "texts"):
            columns = con.execute(f"DESCRIBE SELECT * FROM {view}").fetchall()
            count = (
                ""
                if view == "texts"
                else f" ({con.execute(f'SELECT count(*) FROM {view}').fetchall()[0][0]:,} rows)"
            )
            lines.append(f"{view}{count}: " + ", ".join(f"{c[0]} {c[1]}" for c in columns))
    return "\n".join(lines)


def verification(found: Report) -> str:
    """The checks, a line each, then the faults with their remedies."""
    words = {True: "holds", False: "FAILS", None: "-"}
    lines = [f"{words[check.holds]:<5}  {check.name:<12} {check.what}" for check in found.checks]
    if found.faults:
        lines.append("")
    for fault in found.faults[:FAULTS]:
        lines.append(f"{fault.check}: {fault.what}; {fault.remedy}")
    if len(found.faults) > FAULTS:
        lines.append(f"and {len(found.faults) - FAULTS:,} more; --json tells all")
    lines += [f"removed {path}" for path in found.removed]
    if found.removed:
        lines.append("the next curate run of the recipe makes again what was removed")
    return "\n".join(lines)


def verification_json(found: Report) -> str:
    """All of it, for machines."""
    import msgspec

    return msgspec.json.encode(
        {
            "run": str(found.folder), "holds": found.holds, "bytes": found.bytes, "removed": [str(path) for path in found.removed],
            "checks": [{"check": c.name, "holds": c.holds, "what": c.what} for c in found.checks],
            "faults": [{"check": f.check, "what": f.what, "remedy": f.remedy, "removes": str(f.remove) if f.remove else None} for f in found.faults],
        }
    ).decode()  # fmt: skip


def pruned(found: Pruned) -> str:
    """What was removed, by kind."""
    rows = [(kind.kind, f"{kind.files:,}", f"{kind.bytes / 1e6:,.2f}") for kind in found.removed]
    total = ("all", f"{sum(k.files for k in found.removed):,}", f"{found.bytes / 1e6:,.2f}")
    lines = [table(("would remove" if found.dry_run else "removed", "files", "MB"), [*rows, total], right=(1, 2))]
    others = [str(run) for run in found.runs if run != found.folder]
    if others:
        lines.append(f"the store {found.store} is shared; what these runs refer to stays: {', '.join(others)}")
    return "\n".join(lines)


def listing(what: str) -> str:
    """Names with a line on each."""
    from curate import recipe, registry

    if what == "recipes":
        return "\n".join(f"{f.stem:<16} {_first_comment(f)}" for f in recipe.shipped_recipes())
    if what == "selectors":
        from typing import get_args, get_type_hints

        hows = get_args(get_type_hints(registry.lookup("select").Params)["how"])  # type: ignore[attr-defined]
        return "\n".join(hows)
    stages = registry.known()
    if what == "scorers":
        stages = {n: c for n, c in stages.items() if getattr(c, "scores", False)}
    return "\n".join(
        f"{name:<16} {(cls.__doc__ or '').strip().splitlines()[0]}" for name, cls in stages.items()
    )


def _first_comment(file: Path) -> str:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ") if first.startswith("#") else ""
