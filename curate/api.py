"""The library's verbs; the command line calls these and nothing else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate import joining, registry
from curate import recipe as recipes
from curate.catalog import OpenRun
from curate.errors import ConfigError, DataError
from curate.events import Events, Listener
from curate.frame import DOC, Frame
from curate.outcome import Outcome
from curate.params import Problems, build, did_you_mean
from curate.recipe import Recipe
from curate.runner import Run
from curate.stage import BYTES, IDENTITY, KEY, TEXT, WORDS, Context
from curate.store import sweep_beside, write_atomically

#: Which columns of a score file name its rows, in the file's metadata: `select` carries them over.
KEYS = b"curate.keys"


def load_recipe(
    recipe: Recipe | Mapping[str, Any] | str | Path, overrides: Sequence[str] = (), *, base: Path | str = "."
) -> Recipe:
    """A checked recipe from a file, a shipped recipe's name, plain mappings, or a recipe."""
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return recipes.from_mapping(dict(recipe), base=Path(base).resolve(), overrides=overrides)
    return recipes.load(recipe, overrides)


def run(
    recipe: Recipe | Mapping[str, Any] | str | Path, *, run: Path | str | None = None, store: Path | str | None = None,
    workers: int | None = None, overrides: Sequence[str] = (), listener: Listener | None = None, publish: bool = True,
    verify_input: bool = False, wait: float = 0.0, join: bool = False, task_timeout: float | None = None,
) -> Result:  # fmt: skip
    """Carry out a recipe and publish what it chose; the same call again does only what is missing.

    `run` is the run folder (by default runs/<recipe's name>), `overrides` are `a.b=value` words. Raises ConfigError,
    DataError, StageError or RunHeldError; nothing is half-written under a final name. `wait`: for how many seconds another
    process may hold the folder before that is an error. `join`: share the run with all who call this with `join`.
    `task_timeout`: seconds after which a worker that is still at one task is taken to hang.
    """
    if task_timeout is not None and task_timeout <= 0:
        raise ConfigError(f"expected task_timeout in seconds, above 0, or None, got {task_timeout}")
    checked = load_recipe(recipe, overrides)
    folder = Path(run) if run is not None else Path("runs") / checked.name

    def make() -> Run:
        return Run(
            checked, folder, store=Path(store) if store else None, workers=workers, events=Events(listener), publish=publish,
            verify_input=verify_input, wait=wait, task_timeout=task_timeout,
        )  # fmt: skip

    return Result(joining.execute(make, wait) if join else make().execute())


class Result(OpenRun):
    """A finished run: its counts, and the run to ask questions of."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.folder)
        self.outcome = outcome

    @property
    def mixture(self) -> Path | None:
        """The folder of the publication."""
        return self.outcome.published

    def __repr__(self) -> str:
        o = self.outcome
        return f"<run {o.folder}: {o.kept:,} of {o.documents:,} documents kept, {o.seconds:.1f} s>"

    def _repr_html_(self) -> str:
        return f"<p>{self.__repr__()[1:-1]}</p>" + self.sql("SELECT * FROM funnel")._repr_html_()  # type: ignore[no-any-return]


def open_run(folder: Path | str) -> OpenRun:
    """A run that was done before."""
    return OpenRun(folder)


def score(
    scorer: str, pool: Sequence[str | Path] | str | Path, *, out: Path | str, targets: Mapping[str, Sequence[str | Path]] | Sequence[str | Path] | str | Path = (),
    text: str = "text", view: str = "all", id: str | None = None, source: str | None = None, settings: Mapping[str, Any] | None = None,
    seed: int = 0, workers: int | None = None, listener: Listener | None = None, on_error: str = "fail",
) -> pa.Schema:  # fmt: skip
    """Score every document of a pool and write one row each, in input order, as Parquet.

    Columns: the id and the source where named, file, row, curate_identity, curate_bytes, curate_words, then the
    scorer's own, the main one named after it. Returns the schema that was written.
    """
    paths = [pool] if isinstance(pool, str | Path) else list(pool)
    cls: Any = registry.lookup(scorer)
    if not getattr(cls, "scores", False) and ":" not in scorer:
        scorers = [name for name, found in registry.known().items() if getattr(found, "scores", False)]
        raise ConfigError(f"{scorer!r} is a stage but no scorer{did_you_mean(scorer, scorers)}")
    given = targets if isinstance(targets, Mapping) else {"target": targets}
    named = {name: [files] if isinstance(files, str | Path) else list(files) for name, files in given.items()}
    raw: dict[str, Any] = {
        "corpus": {
            "paths": [str(p) for p in paths],
            "text": text,
            "view": view,
            "id": id,
            "source": source,
            "on_error": on_error,
        },
        "targets": {name: {"guide": [str(f) for f in files]} for name, files in named.items() if files},
        "seed": seed,
        "stages": [{scorer: dict(settings or {})}],
    }
    return _to_file(raw, f"curate score {scorer}", Path(out), workers, listener)


def dedup(
    method: str, pool: Sequence[str | Path] | str | Path, *, out: Path | str, text: str = "text", view: str = "all", id: str | None = None,
    source: str | None = None, settings: Mapping[str, Any] | None = None, workers: int | None = None, listener: Listener | None = None,
    on_error: str = "fail",
) -> pa.Schema:  # fmt: skip
    """Find duplicates with `minhash` or `exact` and write one row for every document, in input order, as Parquet.

    Columns: those that `score` begins with, then the stage's own, named `minhash_...` or `dedup_exact_...`. Returns
    the schema that was written.
    """
    stages = {"minhash": "minhash", "exact": "dedup_exact"}
    if method not in stages:
        raise ConfigError(f"expected minhash or exact, got {method!r}{did_you_mean(method, stages)}")
    raw: dict[str, Any] = {
        "corpus": {
            "paths": [str(p) for p in ([pool] if isinstance(pool, str | Path) else pool)],
            "text": text, "view": view, "id": id, "source": source, "on_error": on_error,
        },
        "stages": [{stages[method]: dict(settings or {})}],
    }  # fmt: skip
    return _to_file(raw, f"curate dedup {method}", Path(out), workers, listener)


def _to_file(raw: dict[str, Any], title: str, out: Path, workers: int | None, listener: Listener | None) -> pa.Schema:
    """Carry out a recipe of one stage and write its columns of the wide table, in input order, behind the keys."""
    recipe = recipes.from_mapping(raw, base=Path.cwd(), name=title.split()[1], title=title)
    with tempfile.TemporaryDirectory(prefix=f"curate-{recipe.name}-") as folder:
        runner = Run(recipe, Path(folder), workers=workers, events=Events(listener), publish=False)
        runner.execute()
        id, source = recipe.corpus.id, recipe.corpus.source
        keys = list(dict.fromkeys(n for n in (id, "file", "row", IDENTITY, BYTES, WORDS, source) if n))
        return _copy_docs(runner, keys, [n for n in runner.nodes[-1].listed() if n not in keys], out)


def _copy_docs(runner: Run, keys: list[str], measures: list[str], out: Path) -> pa.Schema:
    """Write some columns of the wide table, in input order, as one file; atomically."""
    columns = [*keys, *measures]
    files = sorted((runner.folder / "docs").glob("docs-*.parquet"))
    wide = pq.read_schema(files[0])
    schema = pa.schema([wide.field(n) for n in columns], {KEYS: msgspec.json.encode(keys)})

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for file in files:
                with pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True) as source:
                    for batch in source.iter_batches(65536, columns=columns, use_threads=False):
                        writer.write_batch(batch.select(columns).cast(schema))

    _publish(out, write)
    return schema


def _publish(out: Path, write: Any) -> None:
    """Write a file of the user's by a temporary name beside it."""
    out = out.resolve()
    if not out.parent.is_dir():
        raise ConfigError(f"expected a folder for the result, got nothing at {out.parent}")
    sweep_beside(out)
    write_atomically(out, write, out.parent, name=f".{out.name}.{os.getpid()}.making")


def select(
    scores: Path | str, *, out: Path | str, by: str | None = None, how: str = "top_k", budget: str | int | None = None, seed: int = 0,
    settings: Mapping[str, Any] | None = None, workers: int = 2,
) -> list[str]:  # fmt: skip
    """Choose rows of a score file and write them, best first, with their key columns; returns what there is to say.

    `scores` is what `score` wrote, or any Parquet file; its identity is `curate_identity`, or else its row number.
    """
    cls: Any = registry.lookup("select")
    file = Path(scores)
    if not file.is_file():
        raise ConfigError(f"expected a Parquet file of scores, got nothing at {file}")
    try:
        table = pq.read_table(file, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: expected a Parquet file of scores: {error}") from error
    problems = Problems()
    given = {"by": by, "how": how, "budget": budget, **dict(settings or {})}
    params = build(cls.Params, {k: v for k, v in given.items() if v is not None}, "select", problems)
    problems.raise_if_any("curate select")
    source = "source" if "source" in table.schema.names else None
    targets = _targets_in(table.schema, by)
    stage = cls(params, Context("select", seed, targets, str(Path.cwd()), source, table.schema))
    keyed = _keyed(table)
    reads = stage.finish_reads()
    for name in reads:
        if name not in keyed.schema.names:
            raise ConfigError(
                f"curate select: {file} has no column {name!r}{did_you_mean(name, keyed.schema.names)}"
            )
    with tempfile.TemporaryDirectory(prefix="curate-select-") as scratch:
        chosen = _decide(stage, keyed, reads, Path(scratch), workers)
    written = (table.schema.metadata or {}).get(KEYS)
    known = msgspec.json.decode(written, type=list[str]) if written else ["id", "file", "row", IDENTITY, BYTES, WORDS, "source"]
    keys = [n for n in known if n in table.schema.names]
    others = [n for n in reads if n in table.schema.names and n not in keys]
    result = table.select([*keys, *others]).take(chosen[DOC]).append_column("select_rank", chosen["rank"])
    for name in ("score", "target"):
        if name in chosen.schema.names:
            result = result.append_column(f"select_{name}", chosen[name])
    _publish(Path(out), lambda temporary: pq.write_table(result, temporary, compression="zstd"))
    return stage.notes()  # type: ignore[no-any-return]


def _targets_in(schema: pa.Schema, by: str | None) -> tuple[Any, ...]:
    """The targets whose scores a file holds: the suffixes of the columns `<by>_<target>` that carry a meaning."""
    from curate.stage import Target, meaning

    if by is None or by in schema.names:
        return ()
    return tuple(
        Target(n.removeprefix(f"{by}_"))
        for n in schema.names
        if n.startswith(f"{by}_") and meaning(schema.field(n))[0]
    )


def _keyed(table: pa.Table) -> pa.Table:
    """The table with doc, identity, key, bytes and words, made where it does not have them."""
    import numpy as np

    from curate import randomness

    rows = table.num_rows
    table = table.append_column(DOC, pa.array(np.arange(rows))) if DOC not in table.schema.names else table
    if IDENTITY not in table.schema.names:
        table = table.append_column(
            IDENTITY,
            table["id"].cast(pa.string()) if "id" in table.schema.names else table[DOC].cast(pa.string()),
        )
    for name in (BYTES, WORDS):
        if name not in table.schema.names:
            table = table.append_column(name, pa.nulls(rows, pa.int64()))
    return table.append_column(KEY, pa.array(randomness.keys_of(table[IDENTITY].combine_chunks())))


def _decide(stage: Any, table: pa.Table, reads: Sequence[str], scratch: Path, workers: int) -> pa.Table:
    """Let the stage decide over the table; the chosen rows, best first."""
    from curate.rowhash import of_rows

    places = ("file", "row", DOC)
    plain = table.drop_columns([n for n in places if n in table.schema.names])
    schema = stage.prepared(pa.schema([table.schema.field(n) for n in (DOC, *reads)]))

    def hashes(docs: pa.ChunkedArray) -> pa.Table:
        return pa.table({DOC: docs, "row_hash": pa.array(of_rows(plain.take(docs)), pa.string())})

    batches = (stage.prepare(b) for b in table.select([DOC, *reads]).combine_chunks().to_batches())
    frame = Frame(schema, batches, hashes, scratch=scratch, threads=workers)
    try:
        decided = stage.finish(frame).read_all()
    finally:
        frame.close()
    return decided.filter(decided["keep"]).sort_by("rank")


def check(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    overrides: Sequence[str] = (),
    workers: int | None = None,
) -> dict[str, Any]:
    """Check a recipe against its corpus and estimate what a run will cost; reads a sample, writes nothing."""
    from curate.estimate import estimate

    return estimate(load_recipe(recipe, overrides), workers)


def resolved(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values, defaults filled in."""
    return {
        "corpus": msgspec.to_builtins(recipe.corpus), "targets": {n: msgspec.to_builtins(t) for n, t in recipe.targets.items()}, "seed": recipe.seed,
        "stages": [{s.stage: {"as": s.label, **msgspec.to_builtins(s.params)}} for s in recipe.stages], "emit": msgspec.to_builtins(recipe.emit),
    }  # fmt: skip


__all__ = ["TEXT", "Result", "check", "dedup", "load_recipe", "open_run", "resolved", "run", "score", "select"]
