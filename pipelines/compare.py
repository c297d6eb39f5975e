"""Is the selection better than random? The same judge for the selection and for random draws of equal bytes.

Random draws come from the documents that reached the selection, so only the choice differs. The judge is a word
n-gram language model trained on each arm and measured in bits per byte of the target's test (docs/judge.md). KL
reduction is printed beside it as a diagnostic: DSIR optimises it, so it never judges.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from curate import ngrams, randomness, spans
from curate.api import load_recipe
from curate.corpus import TEXT, Layout, Part
from curate.engine import LocalEngine
from curate.errors import ConfigError, DataError
from curate.events import Events, Listener
from curate.kl import kl_reduction
from curate.lease import held
from curate.plan import Node, kept_rows, part_name, rewriters, stored_column, wide_columns
from curate.recipe import CompareSpec, Recipe
from curate.runner import Run
from curate.stage import BYTES, KEY
from curate.store import Sidecars, write_bytes
from curate.verdict import Verdict, judge_arms

#: Random subsets that the KL reduction is printed beside, each with as many n-grams as the selection.
SUBSETS = 20
SPEC = ngrams.NgramSpec()


@dataclass(frozen=True)
class Arm:
    """What one model was trained on, and what it was worth on a target's test."""

    name: str
    documents: int
    bytes: int
    bits_per_byte: float


@dataclass(frozen=True)
class Reduction:
    """KL reduction in nats of the selection, and of random subsets with as many n-grams."""

    selection: float
    random_mean: float
    random_least: float
    random_most: float


@dataclass(frozen=True)
class TargetVerdict:
    """The answer for one target."""

    target: str
    verdict: Verdict
    arms: list[Arm]
    kl: Reduction


@dataclass(frozen=True)
class Comparison:
    """All targets' answers; `budget_bytes` is what every arm may hold."""

    judge: str
    budget_bytes: int
    selection_bytes: int
    eligible_documents: int
    selection_seconds: float
    judge_seconds: float
    targets: list[TargetVerdict] = field(default_factory=list)


@dataclass(frozen=True)
class MeasureTask:
    """Eligible rows of a part: how many n-grams each has, and their counts."""

    layout: Layout
    part: Part
    twin: int
    eligible: list[Node]
    nodes: list[Node]


@dataclass(frozen=True)
class CollectTask:
    """Rows of a part with the arms they belong to, one bit an arm; the last bit is the selection's."""

    layout: Layout
    part: Part
    name: str  # the part's, in the store
    rewriters: list[Sidecars]
    rows: np.ndarray
    arms: np.ndarray
    draws: int
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
    runner = Run(
        checked, folder, store=Path(store) if store else None, workers=workers, events=Events(listener), wait=wait, walk=True,
    )
    outcome = runner.execute()
    started = time.perf_counter()
    with held(runner.folder, wait=wait) as runner.lease, LocalEngine(runner.workers) as runner.engine:
        found = _Comparing(runner, checked.compare).result()
        comparison = Comparison(
            judge, found.budget, found.selection_bytes, len(found.keys), round(outcome.seconds, 3),
            round(time.perf_counter() - started, 3), found.targets,
        )  # fmt: skip
        content = msgspec.json.format(msgspec.json.encode(asdict(comparison)), indent=1)
        write_bytes(runner.folder / "compare.json", content + b"\n", runner.staging)
    return comparison


class _Comparing:
    """One comparison, step by step."""

    def __init__(self, run: Run, spec: CompareSpec) -> None:
        self.run, self.spec = run, spec
        choosing = [n for n in run.nodes if getattr(n.stage, "selects", False)]
        # a mixture only shares out what a selection before it left
        selects = [n.position for n in ([n for n in choosing if n.stage.name != "mix"] or choosing)]
        first = next(
            (n.position for n in run.nodes if n.label in {s.label for s in run.recipe.stages}), len(run.nodes)
        )
        self.reached = selects[-1] if selects else first  # random draws come from what reached this stage
        self.scratch = run.scratch / "compare"

    def result(self) -> _Comparing:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        self._measure()
        self._draw()
        spills = self._collect()
        tests = {
            name: splits["test"].select([TEXT])
            for name, splits in self.run.targets.splits.items()
            if "test" in splits
        }
        self._judge(tests, spills)
        shutil.rmtree(self.scratch, ignore_errors=True)
        return self

    def _measure(self) -> None:
        run = self.run
        tasks = [
            MeasureTask(run.corpus.layout.of([part]), part, twin, run.nodes[: self.reached], run.nodes)
            for part, twin in zip(run.parts, run.twins, strict=True)
        ]
        with run.events.phase("compare: measure"):
            found = run.engine.map("curate.pipelines.compare:measure_part", tasks)
        self.offsets = np.cumsum([0, *[len(f[0]) for f in found]])
        self.rows, self.keys, self.sizes, self.grams, self.chosen = (
            np.concatenate([f[i] for f in found]) for i in range(5)
        )
        self.pool_counts = sum(f[5] for f in found)
        self.selected_counts = sum(f[6] for f in found)
        if not self.chosen.any():
            raise DataError("the selection is empty, so there is nothing to judge")

    def _draw(self) -> None:
        """Bits of membership: one per random draw, one per KL subset, the last for the selection."""
        seed = self.run.recipe.seed
        self.selection_bytes = int(self.sizes[self.chosen].sum())
        self.budget = min(self.selection_bytes, self.spec.max_bytes)
        self.member = np.zeros(len(self.keys), np.uint64)
        everyone = np.ones(len(self.keys), bool)
        for draw in range(self.spec.draws):
            self._mark(
                draw,
                everyone,
                self.sizes,
                self.budget,
                randomness.stream(seed, "compare", "random", str(draw)),
            )
        wanted = int(self.grams[self.chosen].sum())
        for subset in range(SUBSETS):
            at = self.spec.draws + subset
            self._mark(
                at, everyone, self.grams, wanted, randomness.stream(seed, "compare", "subset", str(subset))
            )
        self._mark(
            self.spec.draws + SUBSETS,
            self.chosen,
            self.sizes,
            self.budget,
            randomness.stream(seed, "compare", "selection"),
        )

    def _mark(self, bit: int, among: np.ndarray, sizes: np.ndarray, limit: int, stream: int) -> None:
        """Take documents in a seeded random order; filling stops before the one that would exceed."""
        index = np.flatnonzero(among)
        order = index[np.argsort(randomness.bits(self.keys[index], stream), kind="stable")]
        taken = order[np.cumsum(sizes[order]) <= limit]
        self.member[taken] |= np.uint64(1 << bit)

    def _collect(self) -> list[Path]:
        run, tasks = self.run, []
        for number, part in enumerate(run.parts):
            of_part = slice(self.offsets[number], self.offsets[number + 1])
            wanted = self.member[of_part] != 0
            if wanted.any():
                out = self.scratch / f"{number:06d}.arrow"
                tasks.append(
                    CollectTask(
                        run.corpus.layout.of([part]),
                        part,
                        run.names[number],
                        rewriters(run.nodes[: self.reached]),
                        self.rows[of_part][wanted],
                        self.member[of_part][wanted],
                        self.spec.draws,
                        out,
                    )
                )
        with run.events.phase("compare: collect"):
            counts = run.engine.map("curate.pipelines.compare:collect_part", tasks)
        self.subset_counts = sum(counts)
        return [task.out for task in tasks]

    def _judge(self, tests: Mapping[str, pa.Table], spills: list[Path]) -> None:
        last = self.spec.draws + SUBSETS
        tasks = [JudgeTask(arm, spills, self.spec.order, tests) for arm in (last, *range(self.spec.draws))]
        with self.run.events.phase("compare: judge"):
            bits = self.run.engine.map("curate.pipelines.compare:judge_arm", tasks)
        self.targets = []
        for name, test in tests.items():
            sizes, _ = ngrams.text_stats(test[TEXT])
            verdict = judge_arms(
                bits[0][name],
                np.stack([b[name] for b in bits[1:]]),
                sizes,
                confidence=self.spec.confidence,
            )
            arms = [self._arm("selection" if task.arm == last else f"random {task.arm}", task.arm, b[name].sum() / sizes.sum())
                    for task, b in zip(tasks, bits, strict=True)]  # fmt: skip
            self.targets.append(TargetVerdict(name, verdict, arms, self._reduction(test)))

    def _arm(self, name: str, bit: int, bits_per_byte: float) -> Arm:
        inside = (self.member >> np.uint64(bit)) & np.uint64(1) == 1
        return Arm(name, int(inside.sum()), int(self.sizes[inside].sum()), float(bits_per_byte))

    def _reduction(self, test: pa.Table) -> Reduction:
        target = ngrams.count(test[TEXT], SPEC)[0]
        random = [kl_reduction(target, self.pool_counts, counts) for counts in np.asarray(self.subset_counts)]
        own = kl_reduction(target, self.pool_counts, self.selected_counts)
        return Reduction(own, float(np.mean(random)), min(random), max(random))


def measure_part(task: MeasureTask) -> tuple[np.ndarray, ...]:
    """rows, keys, bytes, n-grams, chosen of the eligible rows; n-gram counts of all of them and of the chosen."""
    pa.set_cpu_count(1)
    name = part_name(task.part, task.twin)
    rows = np.flatnonzero(kept_rows(task.eligible, name))
    chosen = kept_rows(task.nodes, name)[rows]
    keys = stored_column(task.nodes[0], name, KEY).take(pa.array(rows)).to_numpy()
    holder, item = wide_columns(task.eligible)[BYTES]  # of the text as the selection saw it
    sizes = stored_column(holder, name, item).take(pa.array(rows)).to_numpy()
    counts = np.zeros((2, SPEC.buckets), np.int64)
    tokens, at = [np.empty(0, np.int64)], 0
    nothing = np.zeros((1, SPEC.buckets))
    for batch in spans.read_current(task.layout, task.part, name, rewriters(task.eligible), rows=rows):
        text = batch.column(TEXT)
        counts += ngrams.count(text, SPEC, cell=chosen[at : at + len(text)].astype(np.uint8), cells=2)
        tokens.append(ngrams.score(text, SPEC, nothing)[1])
        at += len(text)
    grams = ngrams.ngrams_of(np.concatenate(tokens), SPEC.ngrams)
    return rows, keys, sizes, grams, chosen, counts.sum(axis=0), counts[1]


def collect_part(task: CollectTask) -> np.ndarray:
    """Write the texts of the judged arms with their bits; return the KL subsets' counts, int64[subsets, buckets]."""
    pa.set_cpu_count(1)
    counts = np.zeros((SUBSETS, SPEC.buckets), np.int64)
    judged = np.uint64(((1 << task.draws) - 1) | 1 << (task.draws + SUBSETS))
    schema = pa.schema([("arms", pa.uint64()), ("text", pa.large_string())])
    at = 0
    with pa.ipc.new_file(str(task.out), schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as file:
        for batch in spans.read_current(task.layout, task.part, task.name, task.rewriters, rows=task.rows):
            text, arms = batch.column(TEXT), task.arms[at : at + batch.num_rows]
            at += batch.num_rows
            for subset in range(SUBSETS):
                outside = (arms >> np.uint64(task.draws + subset)) & np.uint64(1) == 0
                counts[subset] += ngrams.count(text, SPEC, cell=np.where(outside, 255, 0).astype(np.uint8))[0]
            inside = pa.array(arms & judged != 0)
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
