"""Nodes: the stages of a run with their keys and places in the store; and the description of them that travels.

A node is a stage under a label. It is built in the parent and again, from its `NodeSpec`, in every worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import registry, spans
from curate.corpus import BAD, Corpus, Part
from curate.errors import ConfigError, InternalError, StageError
from curate.params import did_you_mean
from curate.stage import BASE_COLUMNS, KEEP, REASON, TEXT, Context, column_name, verbs
from curate.store import Sidecars, digest, read_stored

VERDICT = pa.schema([(KEEP, pa.bool_()), (REASON, pa.string())])


@dataclass(frozen=True)
class NodeSpec:
    """What a worker needs to rebuild a stage."""

    stage: str
    base: Path
    params: Any  # builtins of the Params struct
    context: Context


_BUILT: dict[bytes, Any] = {}


def build_stage(spec: NodeSpec) -> Any:
    """The stage object, made once per process and source."""
    cls = registry.lookup(spec.stage, spec.base)
    key = msgspec.json.encode([spec.stage, str(spec.base), registry.source_hash(cls), spec.params, spec.context.label, spec.context.seed,
                               [[t.name, t.weight] for t in spec.context.targets]]) + bytes(spec.context.columns.serialize())  # fmt: skip
    if key not in _BUILT:
        _BUILT[key] = cls(msgspec.convert(spec.params, cls.Params), spec.context)  # type: ignore[attr-defined]
    return _BUILT[key]


@dataclass
class Node:
    """A stage in a run. Paths are set by the runner as keys become known."""

    position: int
    label: str
    spec: NodeSpec
    named: bool = True  # False: its fields are called as they are (the first pass's own columns)
    key: str = ""  # <S>
    measures: Path | None = None  # folder of the sidecars of apply
    state: Path | None = None
    partials: Path | None = None
    verdicts: Path | None = None  # folder of keep and reason of judge
    finished: Path | None = None  # folder of the columns of finish
    stage: Any = field(default=None, repr=False)
    _known: dict[str, pa.Schema] = field(default_factory=dict, repr=False, compare=False)  # what its stage says of itself, asked once

    def __post_init__(self) -> None:
        if self.stage is None:
            self.stage = build_stage(self.spec)
        self.verbs = verbs(self.stage)
        if {"fit", "sample"} <= self.verbs:
            raise ConfigError(f"stage {self.label!r} has fit_part and fit_sample; a stage has one state, made by one of them")

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("stage", "verbs", "_known")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._known = {}
        self.stage = build_stage(self.spec)
        self.verbs = verbs(self.stage)

    def fields(self) -> pa.Schema:
        """The measures that apply adds, unlabelled; where it changes text, also what the new text is."""
        if "fields" not in self._known:
            own = self._own()
            taken = [item.name for item in spans.CURRENT.values() if item.name in own.names] if self.rewrites else []
            if taken:
                raise StageError(f"stage {self.label!r} changes text: the program keeps the new text's {taken[0]} for it, so its own field needs another name")
            self._known["fields"] = pa.schema([*own, *spans.CURRENT.values()]) if self.rewrites else own
        return self._known["fields"]

    def _own(self) -> pa.Schema:
        """The measures that the stage itself says it adds."""
        if "own" not in self._known:
            self._known["own"] = self.stage.fields() if "apply" in self.verbs else pa.schema([])
        return self._known["own"]

    @property
    def rewrites(self) -> bool:
        """Whether the stage changes text: whoever reads it afterwards reads it through the stage's spans."""
        return spans.FIELD in self._own().names

    def unlisted(self) -> tuple[str, ...]:
        """Fields that later stages may read and the wide table does not have."""
        own = tuple(getattr(self.stage, "unlisted", ()))
        return (*own, spans.FIELD, *(item.name for item in spans.CURRENT.values())) if self.rewrites else own

    def finish_fields(self) -> pa.Schema:
        """What finish adds, unlabelled."""
        if "finish" not in self._known:
            self._known["finish"] = self.stage.finish_fields() if "finish" in self.verbs else pa.schema([])
        return self._known["finish"]

    def reads(self) -> list[str]:
        """All columns that any of its verbs reads."""
        methods = [("apply", "reads"), ("fit", "fit_reads"), ("sample", "sample_reads"), ("sample", "sample_from"), ("judge", "judge_reads"), ("finish", "finish_reads")]
        return list(dict.fromkeys(n for verb, method in methods if verb in self.verbs for n in getattr(self.stage, method, list)()))

    def decides(self) -> bool:
        """Whether this stage can drop a document."""
        return "judge" in self.verbs or KEEP in self.finish_fields().names

    def column(self, field_name: str) -> str:
        """The wide table's name of one of its fields; a verdict always has the label, for a user may have a column `reason`."""
        return column_name(self.label, field_name) if self.named or field_name in (KEEP, REASON) else field_name

    def listed(self) -> dict[str, pa.Field]:
        """The columns that the wide table gets from this node: all but those that its stage keeps for itself (`unlisted`)."""
        own = {self.column(name) for name in self.unlisted()}
        return {name: item for name, item in self.columns().items() if name not in own}

    def columns(self) -> dict[str, pa.Field]:
        """All columns that later stages may read, by name."""
        schemas = [self.fields(), self.finish_fields(), VERDICT if "judge" in self.verbs else pa.schema([])]
        found: dict[str, pa.Field] = {}
        for schema in schemas:
            for item in schema:
                found[self.column(item.name)] = item.with_name(self.column(item.name))
        if self.decides() and self.column(REASON) not in found:
            found[self.column(REASON)] = pa.field(self.column(REASON), pa.string())
        return found

    def sidecars(self) -> Sidecars:
        assert self.measures is not None
        return Sidecars(self.measures, self.fields())


def settled(corpus: Corpus) -> Corpus:
    """The corpus with its columns in an order of their own: the id, what the text is made of, the source, the rest by name.

    Files list their columns, and JSON lines their keys, in any order; the first file's order would show in published
    bytes how the input was named and cut.
    """
    layout = corpus.layout
    first = [layout.spec.id, *layout.text_columns, layout.spec.source]
    names = dict.fromkeys([*(n for n in first if n in layout.schema.names), *sorted(layout.schema.names)])
    return replace(corpus, layout=replace(layout, schema=pa.schema([layout.schema.field(n) for n in names])))


def part_name(part: Part, twin: int) -> str:
    """A part's name in the store; `twin` counts the parts of equal content before it."""
    return part.fingerprint if twin == 0 else f"{part.fingerprint}.{twin}"


def twins(parts: list[Part]) -> list[int]:
    """For each part, how many parts of the same fingerprint come before it."""
    seen: dict[str, int] = {}
    numbers = []
    for part in parts:
        numbers.append(seen.get(part.fingerprint, 0))
        seen[part.fingerprint] = numbers[-1] + 1
    return numbers


def wide_columns(nodes: Sequence[Node]) -> dict[str, tuple[Node, str]]:
    """Which node and field each column comes from, for whoever stands behind `nodes`.

    Behind a stage that changes text, the text's hash and sizes are those of the changed text.
    """
    found: dict[str, tuple[Node, str]] = {}
    for node in nodes:
        for schema in (node.fields(), node.finish_fields(), VERDICT if "judge" in node.verbs else pa.schema([])):
            for item in schema:
                found[node.column(item.name)] = (node, item.name)
        if node.rewrites:
            found |= {name: (node, item.name) for name, item in spans.CURRENT.items()}
    return found


def rewriters(nodes: Sequence[Node]) -> list[Sidecars]:
    """The sidecars of those of the nodes that change text, in order."""
    return [node.sidecars() for node in nodes if node.rewrites]


def check_reads(label: str, names: list[str], nodes: list[Node], user: pa.Schema) -> None:
    """Raise a ConfigError where a stage reads a column that nothing before it adds and the corpus does not have."""
    known = {TEXT, BAD, *BASE_COLUMNS, *wide_columns(nodes), *user.names}
    for name in names:
        if name not in known:
            visible = sorted(n for n in known if not n.startswith("__"))
            raise ConfigError(f"stage {label!r} reads the column {name!r}, which is not there at this point{did_you_mean(name, visible)}")


def stage_key(node: Node, inputs: Mapping[str, str]) -> str:
    """`<S>`: name, version, parameters that matter to measures, seed, and the keys of the columns it reads."""
    stage = node.stage
    params = dict(node.spec.params)
    for name in getattr(stage, "judge_params", ()):
        params.pop(name, None)
    for name in getattr(stage, "keyless_params", ()):
        params.pop(name, None)
    context = node.spec.context
    seeded = getattr(stage, "uses_seed", False) or "sample" in node.verbs
    seed = context.seed if seeded else 0
    targets = [[t.name, t.weight] for t in context.targets] if getattr(stage, "uses_targets", False) else []
    label = context.label if seeded else ""
    return digest(stage.name, stage.version, registry.source_hash(type(stage)), params, seed, label, targets, dict(inputs),
                  getattr(stage, "extra_key", lambda: "")())


def stored_column(node: Node, name: str, item: str) -> pa.ChunkedArray:
    """One stored column of a node for a part: a measure, a verdict or what finish found."""
    return stored_columns({item: (node, item)}, name)[item]


def stored_columns(wanted: Mapping[str, tuple[Node, str]], name: str) -> dict[str, pa.ChunkedArray]:
    """Stored columns of nodes for a part, each file opened once."""
    files: dict[tuple[int, Path], tuple[Node, list[str]]] = {}
    for node, item in wanted.values():
        files.setdefault((node.position, _folder(node, item)), (node, []))[1].append(item)
    tables = {place: _read(node, place[1], name, list(dict.fromkeys(items))) for place, (node, items) in files.items()}
    return {key: tables[node.position, _folder(node, item)][item] for key, (node, item) in wanted.items()}


def _folder(node: Node, item: str) -> Path:
    """Where a field of a node lies."""
    if node.measures is not None and item in node.fields().names:
        return node.measures
    folder = node.finished if node.finished is not None and item in node.finish_fields().names else node.verdicts
    assert folder is not None
    return folder


def _read(node: Node, folder: Path, name: str, items: list[str]) -> pa.Table:
    if folder != node.measures:
        return read_stored(folder / f"{name}.parquet", items)
    found = node.sidecars().read(name, items)
    if found is None:
        raise InternalError(f"the sidecar of {node.label!r} for part {name} is missing")
    return found[0]


def kept_by(node: Node, name: str, rows: int) -> np.ndarray:
    """Which rows a node lets pass; a row it was not shown counts as dropped (by an earlier one)."""
    keep = np.ones(rows, bool)
    if node.decides():
        keep &= _bool(stored_column(node, name, KEEP))
    return keep


def _bool(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.fill_null(column, False).to_numpy()).astype(bool)


def kept_rows(nodes: Sequence[Node], name: str) -> np.ndarray:
    """bool[rows]: which rows of a part all of the nodes let pass."""
    found = nodes[0].sidecars().read(name, [])
    if found is None:
        raise InternalError(f"part {name} has not been read")
    keep = np.ones(len(found[1]), bool)
    for node in nodes:
        keep &= kept_by(node, name, len(keep))
    return keep
