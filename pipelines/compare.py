"""Are selections better than random? One judge for each of them and for random draws of equal bytes.

Random draws come from the documents that reached the selection, so only the choice differs. The judge is a word
n-gram language model trained on each arm and measured in bits per byte of the target's test (docs/judge.md). KL
reduction is printed beside it as a diagnostic: DSIR optimises it, so it never judges.

Further arms (`compare: {arms: ...}`) are runs of their own in RUN/arms/<name>, over the same store: what the recipe's
stages computed is computed once, and a comparison that was killed goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import ngrams, recipe, spans
from curate.api import load_recipe
from curate.catalog import ARMS, TRIALS, rebuild
from curate.comparison import Arm, Comparison, Reduction, TargetVerdict, arms_table, trials_table
from curate.corpus import TEXT, Layout, Part, read_part
from curate.engine import LocalEngine
from curate.errors import ConfigError, DataError
from curate.events import Events, Listener
from curate.kl import kl_reduction
from curate.lease import held
from curate.pipelines import arms as drawing
from curate.plan import Node, kept_rows, part_name, rewriters, stored_column, wide_columns
from curate.recipe import CompareSpec, Recipe
from curate.runner import Run
from curate.stage import BYTES, KEY
from curate.store import Sidecars, write_bytes, write_table
from curate.verdict import holm, judge_arms

#: Random subsets that the KL reduction is printed beside, each with as many n-grams as the selection.
SUBSETS = 20
#: What the recipe's own selection is called among the arms.
SELECTION = "selection"
SPEC = ngrams.NgramSpec()


@dataclass(frozen=True)
class MeasureTask:
    """Eligible rows of a part: how many n-grams each has, their counts, and which arms chose them."""

    layout: Layout
    part: Part
    twin: int
    eligible: list[Node]
    arms: list[list[Node]]  # each arm's nodes; the first is the one whose KL reduction is told
    source: str | None


@dataclass(frozen=True)
class CollectTask:
    """Rows of a part with the sets they belong to, one bit a set."""

    layout: Layout
    part: Part
    name: str  # the part's, in the store
    rewriters: list[Sidecars]
    rows: np.ndarray
    arms: np.ndarray
    judged: int  # the bits of the sets whose text is wanted
    subsets: list[int]  # the bits of the sets whose n-grams are counted
    out: Path


@dataclass(frozen=True)
class JudgeTask:
    """Train on one arm, judge on the tests."""

    arm: int
    spills: list[Path]
    order: int
    tests: Mapping[str, pa.Table]


def compare(
    recipe: Recipe | Mapping[str, Any] | str | Path, *, judge: str = "ngram", run: Path | str | None = None, store: Path | str | None = None,
    workers: int | None = None, overrides: Sequence[str] = (), listener: Listener | None = None, wait: float = 0.0,
) -> Comparison:  # fmt: skip
    """Carry the recipe out, then judge what it chose against random draws of equal bytes, per target with a test.

    Smaller bits per byte are better; a positive difference says by how much the selection beats the mean random draw.
    The result is also written to compare.json in the run folder.
    """
    if judge != "ngram":
        raise ConfigError(f"expected --judge ngram, the judge that this version has, got {judge!r}")
    checked = load_recipe(recipe, overrides)
    if not any(spec.files("test") for spec in checked.targets.values()):
        raise ConfigError(
            "compare needs a target with a test: targets: {maths: {guide: [...], test: [test.jsonl]}}"
        )
    folder = Path(run) if run is not None else Path("runs") / checked.name
    store = Path(store) if store else None
    runner = Run(checked, folder, store=store, workers=workers, events=Events(listener), wait=wait, walk=True)
    others = _arms(checked, runner)
    outcome = runner.execute()
    for other in others.values():
        other.taking = runner.listed
        other.execute()
    chosen = round(time.perf_counter() - runner.started, 3) if others else round(outcome.seconds, 3)
    started = time.perf_counter()
    with held(runner.folder, wait=wait) as runner.lease, LocalEngine(runner.workers) as runner.engine:
        found = _Comparing(runner, others, checked.compare)
        found.result()
        comparison = Comparison(
            judge, found.budget, found.arm_bytes[found.first], len(found.pool.keys), chosen,
            round(time.perf_counter() - started, 3), found.targets, found.arm_bytes,
        )  # fmt: skip
        content = msgspec.json.format(msgspec.json.encode(asdict(comparison)), indent=1)
        write_bytes(runner.folder / "compare.json", content + b"\n", runner.staging)
        write_table(runner.folder / ARMS, arms_table(comparison), runner.staging)
        write_table(runner.folder / TRIALS, trials_table(comparison), runner.staging)
        rebuild(runner.folder, runner.staging)
    return comparison


def _choosing(checked: Recipe) -> int:
    """The place among the recipe's stages of the one that chooses: the last that selects, and of those that only share out (mix) the last."""
    from curate import registry

    classes = [registry.lookup(spec.stage, checked.base) for spec in checked.stages]
    selecting = [i for i, cls in enumerate(classes) if getattr(cls, "selects", False)]
    by_merit = [i for i in selecting if not getattr(classes[i], "composes", False)] or selecting
    return by_merit[-1] if by_merit else len(classes)


def _arms(checked: Recipe, runner: Run) -> dict[str, Run]:
    """A run for each further arm; raises ConfigError with every problem of every arm's stages."""
    place, found = _choosing(checked), {}
    if checked.compare.primary is not None and checked.compare.primary not in checked.targets:
        raise ConfigError(f"compare.primary: expected the name of a target ({', '.join(checked.targets)}), got {checked.compare.primary!r}")
    for name, stages in checked.compare.arms.items():
        raw = {key: value for key, value in checked.raw.items() if key not in ("compare", "emit", "train")}
        raw["stages"] = [*(checked.raw.get("stages") or [])[:place], *stages]
        arm = recipe.from_mapping(raw, base=checked.base, name=f"{checked.name}-{name}", title=f"{checked.title}, compare.arms.{name}")
        arm.problems.raise_if_any(arm.title)
        found[name] = Run(
            arm, runner.folder / "arms" / name, store=runner.store, workers=runner.workers, events=runner.events, publish=False, wait=runner.wait, walk=True,
        )  # fmt: skip
    return found


class _Comparing:
    """One comparison, step by step."""

    def __init__(self, run: Run, others: Mapping[str, Run], spec: CompareSpec) -> None:
        self.run, self.spec = run, spec
        named = {s.label for s in run.recipe.stages}
        place = _choosing(run.recipe)
        first = next((n.position for n in run.nodes if n.label in named), len(run.nodes))
        chooses = place < len(run.recipe.stages)
        label = run.recipe.stages[place].label if chooses else None
        # random draws come from what reached the choosing stage; of a recipe of filters alone, from what reached the first
        at_choice = next((n.position for n in run.nodes if n.label == label), len(run.nodes) if others else first)
        self.eligible = run.nodes[:at_choice]
        self.nodes = {**({SELECTION: run.nodes} if chooses or not others else {}), **{name: other.nodes for name, other in others.items()}}
        self.first = next(iter(self.nodes))
        for name, nodes in self.nodes.items():
            changed = [n.label for n in nodes[len(self.eligible) :] if n.rewrites]
            if changed:
                raise ConfigError(f"compare: the arm {name} changes texts behind the choice ({', '.join(changed)}), and arms must differ in their choice alone")
        self.scratch = run.scratch / "compare"

    def result(self) -> None:
        """Measure, draw, collect the texts, judge."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        self._measure()
        self._draw()
        spills = self._collect()
        tests = {name: splits["test"].select([TEXT]) for name, splits in self.run.targets.splits.items() if "test" in splits}
        self._judge(tests, spills)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _measure(self) -> None:
        run = self.run
        tasks = [
            MeasureTask(run.corpus.layout.of([part]), part, twin, self.eligible, list(self.nodes.values()), run.recipe.corpus.source)
            for part, twin in zip(run.parts, run.twins, strict=True)
        ]
        with run.events.phase("compare: measure"):
            found = run.engine.map("curate.pipelines.compare:measure_part", tasks)
        self.offsets = np.cumsum([0, *[len(f.rows) for f in found]])
        self.rows = np.concatenate([f.rows for f in found])
        self.grams = np.concatenate([f.grams for f in found])
        self.chosen = dict(zip(self.nodes, np.concatenate([f.chosen for f in found], axis=1), strict=True))
        sources = None
        if run.recipe.corpus.source is not None:
            codes = pa.concat_arrays([pa.array(f.sources, pa.string()) for f in found]).dictionary_encode(null_encoding="encode").indices
            sources = codes.to_numpy().astype(np.int64)
        self.pool = drawing.Pool(np.concatenate([f.keys for f in found]), np.concatenate([f.sizes for f in found]), sources, run.recipe.seed)
        self.pool_counts = sum(f.counts for f in found)
        self.selected_counts = sum(f.selected for f in found)
        empty = [name for name, chosen in self.chosen.items() if not chosen.any()]
        if empty:
            what = "the selection is" if empty == [SELECTION] else f"the arms {', '.join(empty)} are"
            raise DataError(f"{what} empty, so there is nothing to judge")

    def _draw(self) -> None:
        """Every set of documents: random draws, subsets for the KL reduction, then the arms and the baselines."""
        spec, members = self.spec, drawing.Members(self.pool)
        everyone = np.ones(len(self.pool.keys), bool)
        self.arm_bytes = {name: int(self.pool.sizes[chosen].sum()) for name, chosen in self.chosen.items()}
        self.budget = min(*self.arm_bytes.values(), spec.max_bytes)
        self.random = [members.fill(f"random {draw}", everyone, self.budget, "random", str(draw)) for draw in range(spec.draws)]
        first = self.chosen[self.first]
        wanted = int(self.grams[first].sum())
        self.subsets = [members.fill(f"subset {n}", everyone, wanted, "subset", str(n), sizes=self.grams) for n in range(SUBSETS)]
        self.trials = {name: [members.fill(name, chosen, self.budget, "selection")] for name, chosen in self.chosen.items()}
        kinds: Sequence[drawing.Baseline] = spec.baselines or ()
        if spec.baselines is None and spec.arms:
            kinds = ("random_balanced", "random_length_matched") if self.pool.sources is not None else ("random_length_matched",)
        for kind in kinds:
            self.trials[kind] = [members.baseline(kind, draw, first, self.budget) for draw in range(spec.baseline_draws)]
        self.members = members

    def _judged(self) -> list[int]:
        return [*(bit for bits in self.trials.values() for bit in bits), *self.random]

    def _collect(self) -> list[Path]:
        run, tasks = self.run, []
        judged = sum(1 << bit for bit in self._judged())
        for number, part in enumerate(run.parts):
            of_part = slice(self.offsets[number], self.offsets[number + 1])
            wanted = self.members.bits[of_part] != 0
            if wanted.any():
                tasks.append(CollectTask(
                    run.corpus.layout.of([part]), part, run.names[number], rewriters(self.eligible), self.rows[of_part][wanted],
                    self.members.bits[of_part][wanted], judged, self.subsets, self.scratch / f"{number:06d}.arrow",
                ))  # fmt: skip
        with run.events.phase("compare: collect"):
            counts = run.engine.map("curate.pipelines.compare:collect_part", tasks)
        self.subset_counts = sum(counts)
        return [task.out for task in tasks]

    def _judge(self, tests: Mapping[str, pa.Table], spills: list[Path]) -> None:
        tasks = [JudgeTask(bit, spills, self.spec.order, tests) for bit in self._judged()]
        with self.run.events.phase("compare: judge"):
            bits = dict(zip(self._judged(), self.run.engine.map("curate.pipelines.compare:judge_arm", tasks), strict=True))
        self.targets = []
        for name, test in tests.items():
            sizes, _ = ngrams.text_stats(test[TEXT])
            draws = np.stack([bits[bit][name] for bit in self.random])
            alone = {}
            for arm, own in self.trials.items():
                drawn = np.stack([bits[bit][name] for bit in own])
                alone[arm] = judge_arms(drawn[0] if len(own) == 1 else drawn, draws, sizes, confidence=self.spec.confidence)
            verdicts = holm(alone)
            arms = [self._arm(bit, bits[bit][name].sum() / sizes.sum()) for bit in self._judged()]
            primary = self.spec.primary in (None, name)
            self.targets.append(TargetVerdict(name, verdicts[self.first], arms, self._reduction(test), verdicts, primary))

    def _arm(self, bit: int, bits_per_byte: float) -> Arm:
        inside = self.members.of(bit)
        return Arm(self.members.names[bit], int(inside.sum()), int(self.pool.sizes[inside].sum()), float(bits_per_byte))

    def _reduction(self, test: pa.Table) -> Reduction:
        target = ngrams.count(test[TEXT], SPEC)[0]
        random = [kl_reduction(target, self.pool_counts, counts) for counts in np.asarray(self.subset_counts)]
        own = kl_reduction(target, self.pool_counts, self.selected_counts)
        return Reduction(own, float(np.mean(random)), min(random), max(random))


@dataclass(frozen=True)
class Measured:
    """Eligible rows of a part: places, keys, bytes, n-grams, sources and bool[arms, rows] who chose them; n-gram counts of all, and of the first arm's."""

    rows: np.ndarray
    keys: np.ndarray
    sizes: np.ndarray
    grams: np.ndarray
    sources: pa.Array | None
    chosen: np.ndarray
    counts: np.ndarray
    selected: np.ndarray


def measure_part(task: MeasureTask) -> Measured:
    """What a comparison must know of a part's eligible rows."""
    pa.set_cpu_count(1)
    name = part_name(task.part, task.twin)
    rows = np.flatnonzero(kept_rows(task.eligible, name))
    chosen = np.stack([kept_rows(nodes, name)[rows] for nodes in task.arms])
    keys = stored_column(task.eligible[0], name, KEY).take(pa.array(rows)).to_numpy()
    holder, item = wide_columns(task.eligible)[BYTES]  # of the text as the selection saw it
    sizes = stored_column(holder, name, item).take(pa.array(rows)).to_numpy()
    counts = np.zeros((2, SPEC.buckets), np.int64)
    tokens, at = [np.empty(0, np.int64)], 0
    nothing = np.zeros((1, SPEC.buckets))
    for batch in spans.read_current(task.layout, task.part, name, rewriters(task.eligible), rows=rows):
        text = batch.column(TEXT)
        counts += ngrams.count(text, SPEC, cell=chosen[0, at : at + len(text)].astype(np.uint8), cells=2)
        tokens.append(ngrams.score(text, SPEC, nothing)[1])
        at += len(text)
    grams = ngrams.ngrams_of(np.concatenate(tokens), SPEC.ngrams)
    sources = None
    if task.source is not None:
        found = [batch.column(task.source) for batch in read_part(task.layout, task.part, columns=[task.source], rows=rows, text=False)]
        sources = pc.cast(pa.chunked_array(found, found[0].type if found else pa.string()), pa.string()).combine_chunks()
    return Measured(rows, keys, sizes, grams, sources, chosen, counts.sum(axis=0), counts[1])


def collect_part(task: CollectTask) -> np.ndarray:
    """Write the texts of the judged sets with their bits; return the KL subsets' counts, int64[subsets, buckets]."""
    pa.set_cpu_count(1)
    counts = np.zeros((len(task.subsets), SPEC.buckets), np.int64)
    schema = pa.schema([("arms", pa.uint64()), ("text", pa.large_string())])
    at = 0
    with pa.ipc.new_file(str(task.out), schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as file:
        for batch in spans.read_current(task.layout, task.part, task.name, task.rewriters, rows=task.rows):
            text, arms = batch.column(TEXT), task.arms[at : at + batch.num_rows]
            at += batch.num_rows
            for i, subset in enumerate(task.subsets):
                outside = (arms >> np.uint64(subset)) & np.uint64(1) == 0
                counts[i] += ngrams.count(text, SPEC, cell=np.where(outside, 255, 0).astype(np.uint8))[0]
            inside = pa.array(arms & np.uint64(task.judged) != 0)
            spilled = pa.record_batch([pa.array(arms), text.cast(pa.large_string())], schema=schema)
            file.write_batch(spilled.filter(inside))
    return counts


def judge_arm(task: JudgeTask) -> dict[str, np.ndarray]:
    """Bits of each test document under a model trained on the arm, by target."""
    from curate.ngramlm import NgramLM

    pa.set_cpu_count(1)
    chunks = []
    for path in task.spills:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            inside = (table["arms"].to_numpy() >> np.uint64(task.arm)) & np.uint64(1) == 1
            chunks += table["text"].filter(pa.array(inside)).chunks
    model = NgramLM.train(pa.chunked_array(chunks, pa.large_string()), order=task.order)
    return {name: model.bits(test[TEXT]) for name, test in task.tests.items()}
