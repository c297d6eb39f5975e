"""The command `curate`. Everything heavy is imported inside the commands, so that --help answers at once.

Exit codes: 0 done, 1 a stage failed, 2 the recipe or the words of the call are wrong, 3 the data are bad,
74 the machine could not (disk, rights, memory), 75 another run holds the folder, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn, cast

import click

from curate import __version__
from curate.errors import ConfigError, CurateError, interrupted, told

EPILOG = "Exit codes: 0 done, 1 a stage failed, 2 wrong recipe or words, 3 bad data, 74 disk, rights or memory, 75 run folder held, 130 interrupted."


class _NobodyReadsError(Exception):
    """Standard output was closed by who read it. click would end with 1, which here means that a stage failed."""


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _NobodyReadsError from error


@click.group(
    cls=_Commands,
    epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="curate")
def cli() -> None:
    """Choose the data that language models are trained on, and know whether it beats random."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; errors become one message and a documented exit code."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is not signal.SIG_IGN:  # nohup, or a shell's background job, means it
            signal.signal(name, _interrupted)
    try:
        code = cli.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _leave("interrupted; run the same command again to continue", 130)
    except click.ClickException as error:
        _leave(_shown(error), 2)
    except (BrokenPipeError, _NobodyReadsError):
        _leave("", 0)  # who read our results has seen enough: curate sql ... | head
    except Exception as error:
        if interrupted(error):
            _leave("interrupted; run the same command again to continue", 130)
        if os.environ.get("CURATE_TRACEBACK"):
            raise
        unnamed = isinstance(error, OSError) and error.filename is None
        found = told(error, "could not write to standard output" if unnamed else "curate")
        _leave(f"error: {found}", found.exit_code)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _shown(error: click.ClickException) -> str:
    """What click says about wrong words, usage included."""
    stream = io.StringIO()
    error.show(stream)
    return stream.getvalue().rstrip("\n")


def _leave(message: str, code: int) -> NoReturn:
    """Say a last word and end; what can no longer be written anywhere changes neither the code nor adds a traceback."""
    if message:
        with suppress(OSError):
            click.echo(message, err=True)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _options(*chosen: str) -> Callable[[Any], Any]:
    """Options that several commands share, in one wording."""
    known: dict[str, Any] = {
        "run": click.option(
            "--run", "run_folder", metavar="DIR", help="The run folder (default: runs/<recipe's name>)."
        ),
        "store": click.option(
            "--store",
            metavar="DIR",
            help="Where sidecars and states are kept; may be shared by runs (default: DIR/store).",
        ),
        "workers": click.option(
            "--workers",
            type=click.IntRange(1),
            metavar="N",
            help="Worker processes (default: one per processor).",
        ),
        "set": click.option(
            "--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a setting; repeatable."
        ),
        "wait": click.option(
            "--wait", type=click.FloatRange(0), default=0.0, metavar="SECONDS",
            help="How long another process may hold the run folder before this one gives up with 75 (default: not at all).",
        ),
        "json": click.option(
            "--json-log", is_flag=True, help="Events as JSON lines on standard error, for machines."
        ),
        "text": click.option("--text", default="text", show_default=True, metavar="COL", help="The column that holds the text."),
        "id": click.option("--id", "id_column", metavar="COL", help="The column that names a document."),
        "source": click.option("--source", metavar="COL", help="The column that names a document's source."),
        "on_error": click.option(
            "--on-error", type=click.Choice(["fail", "quarantine"]), default="fail", show_default=True, help="What to do with bad rows."
        ),
        "quiet": click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors and results."),
    }

    def decorate(function: Any) -> Any:
        for name in reversed(chosen):
            function = known[name](function)
        return function

    return decorate


@cli.command()
@click.argument("recipe")
@_options("run", "store", "workers", "set")
@click.option(
    "--verify-input",
    is_flag=True,
    help="Read every input file and compare its hash, whatever its size and time say.",
)
@click.option(
    "--join",
    is_flag=True,
    help="Share the run with all who start it with --join: the first leads, the others take parts of it.",
)
@click.option(
    "--summary-json",
    metavar="FILE",
    help="Write what the run did as one JSON object, also where it failed.",
)
@click.option(
    "--task-timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
    help="End a worker that is at one task for longer; the task is tried once more (default: wait).",
)
@_options("wait", "json", "quiet")
def run(recipe: str, run_folder: str | None, store: str | None, workers: int | None, overrides: tuple[str, ...], verify_input: bool,
        join: bool, summary_json: str | None, task_timeout: float | None, wait: float, json_log: bool, quiet: bool) -> None:  # fmt: skip
    """Carry out RECIPE and publish what it chose. The same command again does only what is missing."""
    from curate import api, show
    from curate.summary import Writer

    told = Writer(Path(summary_json), recipe=recipe) if summary_json else None
    with told or nullcontext(), show.listener(json_log, quiet) as listen:
        result = api.run(
            recipe,
            run=run_folder,
            store=store,
            workers=workers,
            overrides=overrides,
            listener=listen,
            verify_input=verify_input,
            wait=wait,
            join=join,
            task_timeout=task_timeout,
        )
        if told is not None:
            told.result = result
    if not quiet:
        click.echo(show.summary(result))


@cli.command()
@click.argument("recipe")
@_options("workers", "set")
def check(recipe: str, workers: int | None, overrides: tuple[str, ...]) -> None:
    """Validate RECIPE and estimate parts, rows, bytes, memory, disk and time from a sample. Writes nothing."""
    from curate import api, show

    click.echo(show.estimate(api.check(recipe, overrides=overrides, workers=workers)))


@cli.command()
@click.argument("scorer")
@click.argument("pool", nargs=-1, required=True)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Target examples; repeated files join, repeated NAMEs make several targets.",
)
@_options("text")
@click.option("--template", metavar="S", help='The text as a template over columns: "{prompt}\\n{response}".')
@click.option(
    "--view",
    type=click.Choice(["all", "user", "assistant", "last_turn"]),
    default="all",
    show_default=True,
    help="What of instruction data is read.",
)
@_options("id", "source", "on_error")
@click.option(
    "--set", "overrides", multiple=True, metavar="K=VALUE", help="A setting of the scorer; repeatable."
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@_options("workers")
@click.option("-o", "--out", required=True, metavar="FILE", help="The Parquet file to write.")
@_options("json", "quiet")
def score(scorer: str, pool: tuple[str, ...], targets: tuple[str, ...], text: str, template: str | None, view: str, id_column: str | None,
          source: str | None, on_error: str, overrides: tuple[str, ...], seed: int, workers: int | None, out: str, json_log: bool,
          quiet: bool) -> None:  # fmt: skip
    """Score every document of POOL with SCORER; one row each, in input order."""
    from curate import api, show

    with show.listener(json_log, quiet) as listen:
        api.score(
            scorer, pool, out=out, targets=_named_targets(targets), text=template.replace("\\n", "\n") if template else text, view=view,
            id=id_column, source=source, settings=_settings(overrides), seed=seed, workers=workers, listener=listen, on_error=on_error,
        )  # fmt: skip


@cli.command()
@click.argument("method", type=click.Choice(["minhash", "exact"]))
@click.argument("pool", nargs=-1, required=True)
@_options("text")
@_options("id", "source", "on_error")
@click.option(
    "--set", "overrides", multiple=True, metavar="K=VALUE", help="A setting of the method; repeatable."
)
@_options("workers")
@click.option("-o", "--out", required=True, metavar="FILE", help="The Parquet file to write.")
@_options("json", "quiet")
def dedup(method: str, pool: tuple[str, ...], text: str, id_column: str | None, source: str | None, on_error: str,
          overrides: tuple[str, ...], workers: int | None, out: str, json_log: bool, quiet: bool) -> None:  # fmt: skip
    """Find near-duplicates (minhash) or copies (exact) in POOL; one row for every document, in input order."""
    from curate import api, show

    with show.listener(json_log, quiet) as listen:
        api.dedup(
            method, pool, out=out, text=text, id=id_column, source=source, settings=_settings(overrides), workers=workers,
            listener=listen, on_error=on_error,
        )  # fmt: skip


@cli.command()
@click.argument("scores")
@click.option("--by", metavar="COL", help="A score, a column, or an SQL expression over the columns.")
@click.option(
    "--how",
    type=click.Choice(["top_k", "threshold", "resample", "random", "random_balanced"]),
    default="top_k",
    show_default=True,
)
@click.option("--budget", metavar="B", help="500, 5%, 200MB, 2Mwords.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@click.option(
    "--set", "overrides", multiple=True, metavar="K=VALUE", help="Any other setting of select; repeatable."
)
@click.option("-o", "--out", required=True, metavar="FILE", help="The Parquet file to write.")
@_options("quiet")
def select(
    scores: str,
    by: str | None,
    how: str,
    budget: str | None,
    seed: int,
    overrides: tuple[str, ...],
    out: str,
    quiet: bool,
) -> None:
    """Choose rows of SCORES under a budget; writes them best first."""
    from curate import api

    notes = api.select(
        scores, out=out, by=by, how=how, budget=budget, seed=seed, settings=_settings(overrides)
    )
    if not quiet:
        for note in notes:
            click.echo(note, err=True)


@cli.command()
@click.argument("recipe")
@click.option(
    "--judge",
    type=click.Choice(["ngram"]),
    default="ngram",
    show_default=True,
    help="What measures an arm on the test.",
)
@_options("run", "store", "workers", "set", "wait", "json", "quiet")
def compare(recipe: str, judge: str, run_folder: str | None, store: str | None, workers: int | None, overrides: tuple[str, ...],
            wait: float, json_log: bool, quiet: bool) -> None:  # fmt: skip
    """Say whether what RECIPE chooses beats random draws of equal bytes on the target's test."""
    from curate import show
    from curate.pipelines.compare import compare as judged

    with show.listener(json_log, quiet) as listen:
        found = judged(
            recipe,
            judge=judge,
            run=run_folder,
            store=store,
            workers=workers,
            overrides=overrides,
            listener=listen,
            wait=wait,
        )
    click.echo(show.comparison(found))


@cli.command()
@click.argument("data", metavar="DATA", nargs=-1, required=True)
@click.option("-o", "--out", metavar="DIR", help="The folder to make (of a run, default: RUN/tokens/<key>).")
@click.option("--tokenizer", metavar="PATH", help="A Hugging Face folder or a tokenizer.json (default: one is trained on DATA).")
@_options("text")
@click.option("--view", type=click.Choice(["all", "user", "assistant", "last_turn"]), default="all", show_default=True, help="What of instruction data is read.")
@_options("id", "source", "set", "workers", "wait", "json", "quiet")
def tokenize(data: tuple[str, ...], out: str | None, tokenizer: str | None, text: str, view: str, id_column: str | None, source: str | None,
             overrides: tuple[str, ...], workers: int | None, wait: float, json_log: bool, quiet: bool) -> None:  # fmt: skip
    """Turn DATA, a run, a publication or files, into packed token shards that `curate train` reads."""
    from curate import show
    from curate.pipelines.tokenize import spec_of
    from curate.pipelines.tokenize import tokenize as tokenized

    with show.listener(json_log, quiet) as listen:
        found = tokenized(data, out, spec_of(overrides, tokenizer), text=text, view=view, id=id_column, source=source, workers=workers, listener=listen, wait=wait)
    if not quiet:
        click.echo(show.tokens(found))


@cli.command()
@click.argument("what", metavar="RECIPE|RUN|DATA")
@click.option("-o", "--out", metavar="DIR", help="The training's folder (default: models/<DATA's name>; of a run, its models/<key>).")
@_options("run", "store", "workers", "set")
@click.option("--seed", type=int, metavar="N", help="Instead of the recipe's (default: the recipe's, or 0).")
@_options("wait", "json", "quiet")
def train(what: str, out: str | None, run_folder: str | None, store: str | None, workers: int | None, overrides: tuple[str, ...],
          seed: int | None, wait: float, json_log: bool, quiet: bool) -> None:  # fmt: skip
    """Train a model on what RECIPE chooses, on RUN's mixture, or on token sequences. The same command again goes on where it was."""
    from curate import show
    from curate.pipelines.train import train as trained

    follows = int(os.environ.get("RANK", "0")) > 0  # torchrun starts one of these for each device; the first speaks
    with show.listener(json_log and not follows, quiet or follows) as listen:
        found = trained(
            what, out=out, run=run_folder, store=store, workers=workers, overrides=overrides, seed=seed, listener=listen, wait=wait
        )
    if not quiet and not follows:
        click.echo(show.training(found))


@cli.command()
@click.argument("files", nargs=-1, required=True)
@click.option(
    "-o", "--out", required=True, metavar="DIR", help="The folder to write guide, tuning and test into."
)
@click.option("--text", default="text", show_default=True, metavar="COL")
@click.option(
    "--view",
    type=click.Choice(["all", "user", "assistant", "last_turn"]),
    default="all",
    show_default=True,
    help="What of instruction data is read.",
)
@click.option(
    "--fraction",
    "fractions",
    multiple=True,
    metavar="SPLIT=SHARE",
    help="Default: guide=0.4 tuning=0.1 test=0.5.",
)
@click.option(
    "--threshold",
    type=float,
    default=0.5,
    show_default=True,
    help="Jaccard of word 5-grams from which documents stay together.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@click.option("--overwrite", is_flag=True, help="Replace splits that stand there.")
def split(
    files: tuple[str, ...],
    out: str,
    text: str,
    view: str,
    fractions: tuple[str, ...],
    threshold: float,
    seed: int,
    overwrite: bool,
) -> None:
    """Split target FILES into guide, tuning and test, with near-duplicates kept together."""
    from curate.split import DEFAULT_FRACTIONS, split_file
    from curate.textview import View

    shares = {
        name: _number(value, f"--fraction {name}") for name, value in _pairs(fractions, "--fraction").items()
    } or DEFAULT_FRACTIONS
    report = split_file(
        [Path(f) for f in files],
        Path(out),
        text=text,
        view=cast(View, view),
        fractions=shares,
        threshold=threshold,
        seed=seed,
        overwrite=overwrite,
    )
    click.echo(str(report))


@cli.command()
@click.argument("train", metavar="TRAIN")
@click.argument("test", metavar="TEST")
@_options("text")
@click.option("--test-text", metavar="COL", help="The column of TEST, where it is another.")
@click.option("--near", type=float, default=0.5, show_default=True, metavar="SHARE", help="Share of an item from which a document is near.")
@click.option("--embed", "embed", multiple=True, metavar="K=VALUE", help="Compare by meaning too, by this setting of embed (method=ngrams for its default); repeatable.")
@click.option("--similarity", type=float, default=0.9, show_default=True, metavar="COSINE", help="Cosine from which a document has an item's meaning.")
@click.option("--examples", type=click.IntRange(0), default=3, show_default=True, metavar="N", help="Shown of each kind.")
@click.option("--max-share", type=click.FloatRange(0, 1), metavar="SHARE", help="End with 3 where a larger share of TEST is found.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def leakage(train: str, test: str, text: str, test_text: str | None, near: float, embed: tuple[str, ...], similarity: float, examples: int,
            max_share: float | None, as_json: bool) -> int:  # fmt: skip
    """Say what of TEST stands in TRAIN (files, folders or quoted globs): exactly, nearly, in part, by meaning."""
    import msgspec

    from curate import show
    from curate.pipelines.leakage import leakage as audited

    found = audited([train], [test], text=text, test_text=test_text, near=near, part=min(0.15, near), embed=_settings(embed) if embed else None, similarity=similarity, examples=examples)
    click.echo(msgspec.json.encode(found).decode() if as_json else show.leakage(found))
    return 3 if max_share is not None and found.share > max_share else 0


@cli.command()
@click.argument("run_a", metavar="RUN_A")
@click.argument("run_b", metavar="RUN_B")
@click.option("--sql", "query", metavar="QUERY", help="Ask the views diff, a_docs and b_docs instead.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
    help="csv and parquet go with --sql.",
)
@click.option("-o", "--out", metavar="FILE", help="Write the view diff, or the query's result, to this file.")
def diff(run_a: str, run_b: str, query: str | None, form: str, out: str | None) -> None:
    """Tell what RUN_B did otherwise than RUN_A: recipe, documents, sources, lengths, scores."""
    from curate import show
    from curate.diff import Diff

    if query is None and form in ("csv", "parquet"):
        raise ConfigError(f"--format {form} is a form of a query's rows: add --sql, or -o FILE for the whole view as Parquet")
    with Diff(run_a, run_b) as found:
        if query is not None:
            show.write_table(found.sql(query), form, out)
            return
        if out is not None:
            found.write(Path(out))
        click.echo(show.diff_json(found) if form == "json" else show.diff(found))


@cli.command()
@click.argument("run_folder", metavar="RUN")
@click.option(
    "--ids", required=True, metavar="FILE", help="The documents' ids: one a line, or a column of parquet, csv, tsv or jsonl."
)
@click.option("--column", metavar="COL", help="The column of FILE that holds the ids.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; write nothing.")
@click.option("--allow-missing", is_flag=True, help="Keep ids that no document has out for the future, instead of failing.")
@click.option("--near", metavar="FILE", help="Write the near-duplicates to this Parquet file.")
@click.option("--json", "as_json", is_flag=True, help="What was done as one JSON object.")
@_options("workers", "wait", "json", "quiet")
def takedown(run_folder: str, ids: str, column: str | None, dry_run: bool, allow_missing: bool, near: str | None, as_json: bool,
             workers: int | None, wait: float, json_log: bool, quiet: bool) -> None:  # fmt: skip
    """Take documents, and all that equal them, out of RUN for good: publish without them, remove what held them."""
    from curate import removal, show
    from curate.catalog import OpenRun

    listed = removal.read_ids(Path(ids), column, OpenRun(run_folder).lock()["corpus"]["id"])
    with show.listener(json_log, quiet) as listen:
        done = removal.take_down(
            run_folder, listed, dry_run=dry_run, allow_missing=allow_missing, workers=workers, wait=wait, listener=listen
        )
    if near is not None and done.near is not None:
        show.write_table(done.near, "parquet", near)
    click.echo(show.taken_json(done) if as_json else show.taken(done, run_folder))


@cli.command()
@click.argument("run_folder", metavar="RUN")
@click.argument("query")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
)
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    help="Write here instead of standard output (needed for parquet on a terminal).",
)
def sql(run_folder: str, query: str, form: str, out: str | None) -> None:
    """Ask RUN in SQL: views docs, selected, stages, funnel, parts, and texts."""
    from curate import show
    from curate.catalog import OpenRun

    show.write_table(OpenRun(run_folder).arrow(query), form, out)


@cli.command()
@click.argument("run_folder", metavar="RUN")
@click.argument("identity", metavar="ID")
def explain(run_folder: str, identity: str) -> None:
    """Tell every stage's verdict and scores for one document, with the head of its text."""
    from curate import show
    from curate.catalog import OpenRun

    found = OpenRun(run_folder).explain(identity)
    if not found:
        raise ConfigError(
            f'{run_folder} has no document {identity!r}; its id where the recipe names one, otherwise the text\'s hash: curate sql {run_folder} "SELECT curate_identity FROM docs LIMIT 5"'
        )
    click.echo("\n\n".join(show.explanation(document) for document in found))


@cli.command()
@click.argument("run_folder", metavar="RUN")
@click.option("--stage", metavar="LABEL", help="The stage that made the clusters (needed where there are several).")
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, metavar="N", help="How many clusters.")
@click.option("--members", type=click.IntRange(1), default=4, show_default=True, metavar="N", help="How many dropped documents of each.")
def clusters(run_folder: str, stage: str | None, top: int, members: int) -> None:
    """Show RUN's largest clusters of near-duplicates: their documents, and what differs between the texts."""
    from curate import clusters as groups
    from curate import show
    from curate.catalog import OpenRun

    click.echo(show.clusters(groups.largest(OpenRun(run_folder), stage, top=top, members=members)))


@cli.command()
@click.argument("run_folder", metavar="RUN")
@click.option("--by-source", is_flag=True, help="Counts by source too.")
@click.option("--examples", type=click.IntRange(1), is_flag=False, flag_value=10, metavar="[N]", help="Also show N random documents of each reason; without N, 10.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of the examples.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
def funnel(run_folder: str, by_source: bool, examples: int | None, seed: int, form: str) -> None:
    """Show what became of RUN's documents: by stage and reason, with what was left behind each stage."""
    from curate import funnel as funnels
    from curate import show
    from curate.catalog import OpenRun

    if examples and form != "table":
        raise ConfigError("--examples are for reading; with --format csv or json ask curate sql for documents")
    opened = OpenRun(run_folder)
    show.write_table(funnels.counts(opened, by_source=by_source), form, None)
    if examples:
        click.echo("\n" + show.examples(funnels.examples(opened, examples, seed=seed)))


@cli.command()
@click.argument("run_folder", metavar="RUN")
def catalog(run_folder: str) -> None:
    """Tell where RUN's catalog is and what is in it."""
    from curate import show
    from curate.catalog import OpenRun

    click.echo(show.catalog(OpenRun(run_folder)))


@cli.command()
@click.argument("run_folder", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(run_folder: str, as_json: bool) -> None:
    """Tell what RUN is doing or did last: progress, rate, time left, or how it ended."""
    import msgspec

    from curate.status import described, look

    report = look(Path(run_folder))
    click.echo(msgspec.json.encode(report).decode() if as_json else described(report))


@cli.command()
@click.argument("run_folder", metavar="RUN")
@click.option(
    "--repair",
    is_flag=True,
    help="Remove what is damaged, so that the next run makes it again. Never touches inputs.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="The checks and faults as one JSON object on standard output."
)
@_options("workers", "quiet")
def verify(run_folder: str, repair: bool, as_json: bool, workers: int | None, quiet: bool) -> None:
    """Check everything that RUN refers to: files, rows, verdicts, balances, the publication, the inputs."""
    from curate import show
    from curate.errors import DataError
    from curate.verify import verify as verified

    with show.listener(False, quiet or as_json) as listen:
        found = verified(run_folder, repair=repair, workers=workers, listener=listen)
    if as_json or not quiet or not found.holds:
        click.echo(show.verification_json(found) if as_json else show.verification(found))
    if not found.holds:
        raise DataError(f"{len(found.faults)} faults in {run_folder}")


@cli.command()
@click.argument("run_folder", metavar="RUN")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many publications stay: the current one, then the newest.",
)
@click.option(
    "--forget",
    multiple=True,
    metavar="RUN",
    help="Take a run whose folder is gone out of the register of a shared store; repeatable.",
)
def prune(run_folder: str, dry_run: bool, keep: int, forget: tuple[str, ...]) -> None:
    """Remove what nothing refers to: results of earlier settings and inputs, old publications, leftovers."""
    from curate import show
    from curate.prune import prune as pruned

    click.echo(show.pruned(pruned(run_folder, dry_run=dry_run, keep=keep, forget=forget)))


@cli.command()
@click.argument("model", metavar="MODEL")
@click.option("-o", "--out", "folder", default="models", show_default=True, metavar="DIR", help="The folder that it is put into.")
@click.option("--url", metavar="URL", help="Another place to fetch it from, such as a mirror; MODEL is then the file's name.")
@click.option("--checksum", "sha256", metavar="HEX", help="What the file's SHA-256 must be.")
def fetch(model: str, folder: str, url: str | None, sha256: str | None) -> None:
    """Fetch a published MODEL once (lid176, lid176-small, glotlid), and show its checksum; no run ever does."""
    from curate import show
    from curate.fetch import fetch as fetched

    with show.downloading(model) as progress:
        found = fetched(model, folder, url=url, sha256=sha256, progress=progress)
    click.echo(f"{found.path}{'' if found.new else ' (was there)'}: {found.bytes:,} bytes, sha256 {found.sha256}")


@cli.command(name="list")
@click.argument("what", type=click.Choice(["scorers", "selectors", "stages", "recipes"]), default="stages")
def list_(what: str) -> None:
    """List what there is."""
    from curate import show

    click.echo(show.listing(what))


@cli.command()
@click.argument("stage", metavar="STAGE")
@click.option(
    "--set", "overrides", multiple=True, metavar="K=VALUE", help="A setting of the stage; repeatable."
)
def conformance(stage: str, overrides: tuple[str, ...]) -> None:
    """Run the conformance suite on STAGE: a name, FILE:CLASS or MODULE:CLASS."""
    from curate.conformance import check_stage

    results = check_stage(stage, _settings(overrides))
    for result in results:
        click.echo(
            f"{'holds' if result.holds else 'FAILS'}  {result.name}{'' if result.holds else ': ' + result.why}"
        )
    if not all(result.holds for result in results):
        raise CurateError(f"{sum(not r.holds for r in results)} of {len(results)} checks failed for {stage}")


def _named_targets(words: Sequence[str]) -> dict[str, list[str]]:
    """`FILE` joins the target `target`; `NAME=FILE` makes one per name."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if equals and name.isidentifier() and not Path(word).exists():
            found.setdefault(name, []).append(file)
        else:
            found.setdefault("target", []).append(word)
    return found


def _pairs(words: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option}: expected KEY=VALUE, got {word!r}")
        found[name] = value
    return found


def _settings(words: Sequence[str]) -> dict[str, Any]:
    """K=VALUE words with YAML values."""
    import yaml

    try:
        return {name: yaml.safe_load(value) for name, value in _pairs(words, "--set").items()}
    except yaml.YAMLError as error:
        raise ConfigError(f"--set: expected a YAML value: {error}") from error


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{where}: expected a number, got {text!r}") from error


if __name__ == "__main__":
    main()
