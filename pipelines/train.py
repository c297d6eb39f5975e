"""`curate train`: a model is trained on what a recipe chose, or on token sequences from elsewhere.

    RECIPE   carried out first, only what is missing; then trained as its section `train` says
    RUN      the folder of a finished run: its mixture, and its recipe's section `train`
    DATA     token sequences, with settings of the call alone

A run's models are in RUN/models/<key>; `RUN/model` points at the one that was asked for last.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow.parquet as pq
import yaml

from curate import api, copies, takedown
from curate import recipe as recipes
from curate.catalog import OpenRun, rebuild
from curate.errors import ConfigError
from curate.events import Listener
from curate.lease import held
from curate.params import Problems, build
from curate.shards import Shards, are_shards, read_manifest
from curate.store import point
from curate.tokentable import TokenTable
from curate.trainspec import TrainSpec

if TYPE_CHECKING:
    from curate.packed import Sequences
    from curate.training import Trained


def train(
    what: Path | str, *, out: Path | str | None = None, run: Path | str | None = None, store: Path | str | None = None, workers: int | None = None,
    overrides: Sequence[str] = (), seed: int | None = None, listener: Listener | None = None, wait: float = 0.0,
) -> Trained:  # fmt: skip
    """Train on `what`, a recipe, a run's folder or token sequences; the same call again goes on where it was.

    `out` is the folder for token sequences (by default models/<their name>); a run's models are in the run. Raises ConfigError,
    DataError, StageError where training diverged, or RunHeldError.
    """
    _have_torch()
    path = Path(what)
    if path.is_dir() and (path / "catalog.duckdb").exists():
        if run is not None or store is not None:
            raise ConfigError("--run and --store go with a recipe; this is a run already")
        return _of_run(path, overrides, out, seed, listener, wait)
    if path.is_dir() or path.suffix == ".parquet":
        from curate import training

        spec = spec_of(settings(overrides))
        folder = Path(out) if out is not None else Path("models") / path.resolve().stem
        data: Sequences = Shards(path, check=True) if are_shards(path) else TokenTable(path)
        return training.train(data, spec, folder, seed=seed or 0, listener=listener, base=Path.cwd(), wait=wait)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("under torchrun, train on a run: `curate run RECIPE` first, then torchrun -m curate train RUN")
    recipe = recipes.load(path, overrides)
    if recipe.train is None and not recipe.problems.found:
        raise ConfigError(f"{recipe.title}: expected a section train, which says how; train: {{}} is the small model from scratch")
    done = api.run(recipe, run=run, store=store, workers=workers, listener=listener, wait=wait)
    return _of_run(done.folder, (), out, seed, listener, wait)


def _of_run(folder: Path, overrides: Sequence[str], out: Path | str | None, seed: int | None, listener: Listener | None, wait: float) -> Trained:
    """Train on a run's mixture, into its models/."""
    from curate import training

    opened = OpenRun(folder)
    lock = opened.lock()
    asked = yaml.safe_load((opened.folder / "recipe.yaml").read_text(encoding="utf-8")).get("train") or {}
    given = settings(overrides)
    spec = spec_of(_merged(asked, given))
    base = Path.cwd() if "model" in given or "branch_from" in given else Path(lock["base"])
    trained = training.train(
        of_mixture(opened.folder), spec, Path(out) if out is not None else opened.folder / "models", seed=lock["seed"] if seed is None else seed,
        listener=listener, base=base, wait=wait, keyed=out is None,
    )  # fmt: skip
    if out is None and int(os.environ.get("RANK", "0")) == 0:
        with held(opened.folder, wait=max(wait, 10.0)) as lease:
            point(opened.folder / "model", f"models/{trained.key}/model", lease.staging)
            rebuild(opened.folder, lease.staging)
    return trained


def of_mixture(run: Path) -> Sequences:
    """The sequences of a run's mixture: its token shards, or its own tokens; ConfigError where it has neither, or several."""
    current = (run / "mixture").resolve().name
    made = [path for path in takedown.tokenized(run) if are_shards(path) and read_manifest(path).made_of == current]
    if len(made) == 1:
        return Shards(made[0], check=True)
    if made:
        raise ConfigError(f"{run}: its mixture was tokenized {len(made)} times; name one to train on: curate train {made[0]}")
    files = sorted((run / "mixture" / "data").glob("*.parquet"))
    if not files or "input_ids" not in pq.read_schema(files[0]).names:
        raise ConfigError(
            f"{run}: expected a mixture with tokens, a column input_ids, got {'text alone' if files else 'no Parquet'}; curate tokenize {run} makes some, "
            "or publish with emit: {format: parquet}"
        )
    said = copies.of_publication(run / "mixture")
    return TokenTable(run / "mixture" / "data", in_order=said is not None and said.in_order)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings, those of `above` over those of `below`."""
    found = dict(below)
    for name, value in above.items():
        old = found.get(name)
        found[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found


def settings(words: Sequence[str]) -> dict[str, Any]:
    """`a.b=value` words as nested settings, with or without `train.` before; values are YAML."""
    found: dict[str, Any] = {}
    for word in words:
        path, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"--set {word}: expected a.b=value")
        *steps, last = path.removeprefix("train.").split(".")
        place = found
        for step in steps:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise ConfigError(f"--set {word}: {step} has a value already")
        try:
            place[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {word}: expected a YAML value: {error}") from error
    return found


def spec_of(values: Mapping[str, Any]) -> TrainSpec:
    """Checked settings; every problem at once."""
    problems = Problems()
    spec = build(TrainSpec, msgspec.to_builtins(dict(values)), "train", problems)
    problems.raise_if_any("curate train")
    assert spec is not None
    return spec


def _have_torch() -> None:
    import importlib.util

    missing = [name for name in ("torch", "transformers", "peft", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"curate train needs {', '.join(missing)}: pip install 'curate[train]'")
