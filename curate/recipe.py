"""Recipes: YAML in, checked structs out; every problem at once, each with its path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from curate import registry
from curate.corpus import CorpusSpec
from curate.errors import ConfigError
from curate.guards import GuardsSpec
from curate.params import Problems, build, did_you_mean
from curate.stage import Target
from curate.trainspec import TrainSpec

_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
#: What the funnel calls what became of documents without a stage of the recipe's.
RESERVED = ("kept", "read", "quarantine", "takedown", "license", "overlap")
_SECTIONS = ("corpus", "targets", "seed", "stages", "emit", "compare", "train", "guards", "name")


class TargetSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named aim: guide files steer, test files judge, tuning files are for tuning; the three are disjoint."""

    guide: str | list[str]
    tuning: str | list[str] | None = None
    test: str | list[str] | None = None
    weight: float = 1.0
    text: str | None = None  # as in corpus; by default the corpus's own

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ConfigError(f"expected a weight above 0, got {self.weight}")

    def files(self, split: str) -> list[str]:
        """The files of one split, as written in the recipe."""
        value = getattr(self, split)
        return [] if value is None else [value] if isinstance(value, str) else list(value)


class EmitSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the chosen documents are published."""

    format: Literal["parquet", "jsonl"] = "parquet"  # jsonl is compressed: train-....jsonl.zst
    shard_bytes: int = 100_000_000  # about how many bytes of text a shard holds
    name: str = "train"

    def __post_init__(self) -> None:
        if self.shard_bytes < 1:
            raise ConfigError(f"expected shard_bytes of at least 1, got {self.shard_bytes}")
        if not _LABEL.match(self.name):
            raise ConfigError(f"expected a split's name of letters, digits and _, got {self.name!r}")


class CompareSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How selections are judged against random draws.

    `arms` are further selections: a list of stages each, in the place of the recipe's last choosing stage and all behind it.
    `primary` names the target for which alone the words better and worse are used.
    """

    draws: int = 10
    arms: dict[str, list[Any]] = {}
    baselines: list[Literal["random_balanced", "random_length_matched"]] | None = None  # None: both where there are arms
    baseline_draws: int = 5
    primary: str | None = None
    max_bytes: int = 50_000_000  # an arm larger than this is judged on a seeded sample of it, every arm alike
    order: int = 3
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.draws < 3:
            raise ConfigError(
                f"expected at least 3 draws, got {self.draws}: fewer give no interval worth the name"
            )
        if self.baseline_draws < 2:
            raise ConfigError(f"expected at least 2 baseline_draws, got {self.baseline_draws}: one has no spread")
        for name in self.arms:
            if not _LABEL.match(name) or name == "selection" or name.startswith("random"):
                raise ConfigError(f"expected the name of an arm as letters, digits and _, and not selection or random, got {name!r}")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"expected a confidence from 0.5 to below 1, got {self.confidence}")
        if self.order not in (1, 2, 3):
            raise ConfigError(f"expected an order of 1, 2 or 3, got {self.order}")


@dataclass(frozen=True)
class StageSpec:
    """One entry of `stages`: which class, under which label, with which parameters."""

    stage: str
    label: str
    params: msgspec.Struct
    where: str


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. `base` is the folder that relative paths are from."""

    name: str
    base: Path
    corpus: CorpusSpec
    targets: dict[str, TargetSpec]
    seed: int
    stages: tuple[StageSpec, ...]
    emit: EmitSpec | None
    compare: CompareSpec
    guards: GuardsSpec
    #: how a model is trained on the mixture, where the recipe says so
    train: TrainSpec | None
    raw: dict[str, Any]
    #: what is wrong with it so far: planning a run adds what only the corpus shows, and raises all together
    problems: Problems = field(default_factory=Problems)
    title: str = "recipe"

    def stage_targets(self) -> tuple[Target, ...]:
        """What stages may know of the targets."""
        return tuple(Target(name, spec.weight) for name, spec in self.targets.items())


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice: plain YAML keeps the last one silently."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is written twice", key_node.start_mark
            )
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, or a recipe that ships with curate by its name; `overrides` are `a.b=value` words.

    Relative paths are from the recipe's folder; those of a shipped recipe from the current one.
    """
    file = find(path)
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: expected YAML, got: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {file}: {error.strerror}") from error
    base = Path.cwd() if file in shipped_recipes() else file.resolve().parent
    return from_mapping(raw, base=base, name=file.stem, overrides=overrides, title=str(file))


def find(path: Path | str) -> Path:
    """The recipe's file: as given, or one that ships with curate under that name."""
    file = Path(path)
    if file.is_file() or file.suffix in (".yaml", ".yml") or len(file.parts) > 1:
        return file
    shipped = {f.stem: f for f in shipped_recipes()}
    if file.name in shipped:
        return shipped[file.name]
    raise ConfigError(
        f"expected a recipe file, or the name of a recipe that ships with curate, got {str(path)!r}{did_you_mean(file.name, shipped)}"
    )


def shipped_recipes() -> list[Path]:
    """The recipes inside the package."""
    return sorted((Path(__file__).parent / "pipelines" / "recipes").glob("*.yaml"))


def from_mapping(
    raw: Any, *, base: Path, name: str = "recipe", overrides: Sequence[str] = (), title: str = "recipe"
) -> Recipe:
    """Check a recipe given as plain mappings and lists.

    Problems are kept in the result, for the run to raise together with those that only the corpus shows; where there
    is no corpus to look at, they are raised here.
    """
    problems = Problems()
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{title}: expected a mapping with corpus and stages, got {type(raw).__name__}")
    values = msgspec.to_builtins(raw)
    for word in overrides:
        _override(values, word, problems)
    for key in values:
        if key not in _SECTIONS:
            problems.add(str(key), f"unknown section{did_you_mean(str(key), _SECTIONS)}")
    if "corpus" not in values:
        problems.add(
            "corpus", "this section is missing; it names the pool, e.g. corpus: {paths: [pool/*.parquet]}"
        )
    corpus = build(CorpusSpec, values["corpus"], "corpus", problems) if "corpus" in values else None
    targets = _targets(values.get("targets"), problems)
    seed = values.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        problems.add("seed", f"expected a whole number, got {seed!r}")
    stages = _stages(values.get("stages"), base, problems)
    emit = build(EmitSpec, values.get("emit"), "emit", problems)
    compare = build(CompareSpec, values.get("compare"), "compare", problems)
    guards = build(GuardsSpec, values.get("guards"), "guards", problems)
    train = build(TrainSpec, values["train"], "train", problems) if "train" in values else None
    if corpus is None:
        problems.raise_if_any(title)
    assert corpus is not None
    return Recipe(
        name=str(values.get("name", name)), base=base, corpus=corpus, targets=targets, seed=seed if isinstance(seed, int) else 0,
        stages=tuple(stages), emit=emit, compare=compare or CompareSpec(), guards=guards or GuardsSpec(), train=train, raw=values, problems=problems, title=title,
    )  # fmt: skip


def _targets(values: Any, problems: Problems) -> dict[str, TargetSpec]:
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        problems.add("targets", f"expected a mapping of names, got {type(values).__name__}")
        return {}
    found = {}
    for name, value in values.items():
        if not isinstance(name, str) or not _LABEL.match(name):
            problems.add(
                f"targets.{name}", "expected a name of letters, digits and _, beginning with a letter"
            )
        spec = build(TargetSpec, value, f"targets.{name}", problems)
        if spec is not None:
            found[str(name)] = spec
            if not spec.files("guide"):
                problems.add(f"targets.{name}.guide", "expected at least one file, got none")
    return found


def _stages(values: Any, base: Path, problems: Problems) -> list[StageSpec]:
    if values is None:
        values = []
    if not isinstance(values, list):
        problems.add(
            "stages",
            f"expected a list, one stage an entry (- length: {{min_bytes: 20}}), got {type(values).__name__}",
        )
        return []
    found: list[StageSpec] = []
    labels: dict[str, str] = {}
    for index, entry in enumerate(values):
        if isinstance(entry, str):
            entry = {entry: {}}
        if not isinstance(entry, Mapping) or len(entry) != 1:
            problems.add(f"stages[{index}]", f"expected one stage with its settings under it, got {entry!r}")
            continue
        name, settings = next(iter(entry.items()))
        where = f"stages[{index}].{name}"
        try:
            cls = registry.lookup(str(name), base)
            if getattr(cls, "internal", False):
                raise ConfigError(f"{name!r} is part of every run and cannot be a stage")
            if not hasattr(cls, "Params") or not hasattr(cls, "version"):
                raise ConfigError(f"expected a stage, a class with Params and version, got {cls.__name__} (docs/new_scorer.md shows one)")
        except ConfigError as error:
            problems.add(where, str(error))
            continue
        settings = dict(settings) if isinstance(settings, Mapping) else settings
        label = settings.pop("as", None) if isinstance(settings, dict) else None
        label = str(cls.name if label is None else label)  # type: ignore[attr-defined]
        if not _LABEL.match(label):
            problems.add(f"{where}.as", f"expected a label of letters, digits and _, got {label!r}")
        if label in RESERVED:
            problems.add(
                f"{where}.as",
                f"the funnel says {label!r} of documents itself; give this stage another label: as: {label}_2",
            )
        if label in labels:
            problems.add(
                where,
                f"the label {label!r} is taken by {labels[label]}; give this one another: as: {label}_2",
            )
            continue  # its columns would clash as well: one problem, told once
        labels[label] = where
        params = build(cls.Params, settings, where, problems)
        if params is not None:
            found.append(StageSpec(str(name), label, params, where))
    return found


def _override(values: dict[str, Any], word: str, problems: Problems) -> None:
    """Apply `a.b=value`; in `stages` a step is an index, a label or a stage's name."""
    path, equals, text = word.partition("=")
    if not equals:
        problems.add(f"--set {word}", "expected a.b=value")
        return
    steps = path.split(".")
    place: Any = values
    for position, step in enumerate(steps[:-1]):
        if isinstance(place, list):
            place = _stage_settings(place, step)
        elif isinstance(place, dict):
            place = place.setdefault(step, {})
        if place is None or not isinstance(place, dict | list):
            problems.add(f"--set {path}", f"there is no {'.'.join(steps[: position + 1])} in the recipe")
            return
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        value = text
    if isinstance(place, list):
        problems.add(f"--set {path}", "name a stage and one of its settings: stages.dsir.hash=sha256")
    else:
        place[steps[-1]] = value


def _stage_settings(stages: list[Any], step: str) -> Any:
    if step.isdigit() and int(step) < len(stages):
        entry = stages[int(step)]
        name = next(iter(entry)) if isinstance(entry, dict) and entry else None
        if name is not None and entry[name] is None:
            entry[name] = {}
        return entry.get(name) if name is not None else None
    for entry in stages:
        if isinstance(entry, dict) and len(entry) == 1:
            name, settings = next(iter(entry.items()))
            if settings is None:
                settings = entry[name] = {}
            if isinstance(settings, dict) and step in (settings.get("as"), name):
                return settings
    return None
