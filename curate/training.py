"""The loop that trains a causal language model on packed sequences, and can be killed at any moment.

A step: its sequences are a function of (seed, step); each device runs its share in micro-batches, the loss is the sum over the
labels divided by all labels of the step, gradients are added up, clipped, and AdamW steps. Nothing else has a state.
"""

from __future__ import annotations

import inspect
import math
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from curate import adapters, checkpoint, flops, forgetting, models, randomness, takedown
from curate.distributed import World, joined
from curate.errors import ConfigError, StageError, uninterrupted
from curate.events import Events, Listener
from curate.lease import held
from curate.packed import (
    IGNORED,
    Batch,
    Ints,
    Order,
    Sequences,
    ahead,
    collate,
    identities,
    labels_of,
    shares,
)
from curate.prepared import Begun, Prepared, differences, prepare
from curate.schedule import multiplier, share_of
from curate.stage import IDENTITY
from curate.store import read_sealed, read_table, sealed, write_bytes, write_table
from curate.trainspec import TrainSpec

METRICS = pa.schema(
    [("step", pa.int64()), ("epoch", pa.float64()), ("tokens", pa.int64()), ("targets", pa.int64()), ("loss", pa.float64()),
     ("bits_per_byte", pa.float64()), ("learning_rate", pa.float64()), ("gradient_norm", pa.float64()), ("forgetting", pa.float64()),
     ("seconds", pa.float64()), ("tokens_per_second", pa.float64()), ("mfu", pa.float64()), ("peak_bytes", pa.int64())]
)  # fmt: skip
#: Columns that say how long something took; all others are the same in every run of a training on one machine.
OF_TIME = ("seconds", "tokens_per_second", "mfu", "peak_bytes")
#: Steps left out of the median of the rates, and how many are in it.
WARM_UP, MEDIAN_OF = 10, 100
#: Steps whose mean loss is held against a blow-up.
RECENT = 20


@dataclass(frozen=True)
class Trained:
    """What a training left: the model's folder, the metrics' file, and its figures."""

    folder: Path
    model: Path
    metrics: Path
    checkpoints: list[Path]
    key: str
    steps: int
    tokens: int
    loss: float | None  # nats a label, of the last step
    bits_per_byte: float | None
    tokens_per_second: float | None  # non-padding; the median of steps after warm-up
    mfu: float | None
    peak_bytes: int
    precision: str
    device: str
    forgetting: float | None = None


def train(
    data: Sequences, spec: TrainSpec, folder: Path | str, *, seed: int = 0, listener: Listener | None = None, base: Path | str = ".", wait: float = 0.0,
    keyed: bool = False,
) -> Trained:  # fmt: skip
    """Train as `spec` says into `folder`; the same call again goes on where it was, or returns what is there.

    The folder holds training.json, checkpoints/, metrics.parquet and model/, an ordinary Hugging Face folder. Under torchrun
    every process calls this. With `keyed` the folder is one of many, named by its key in `folder`. Raises ConfigError for what does not fit, StageError for a training that diverged, RunHeldError.
    """
    import torch

    folder, events = Path(folder).resolve(), Events(listener)
    with joined(spec.device) as world, torch.random.fork_rng(devices=[]), _threads():
        prepared = prepare(data, spec, seed=seed, base=Path(base))
        folder = folder / prepared.key if keyed else folder
        with held(folder, wait=wait) if world.leads else nullcontext() as lease:
            return _Training(prepared, folder, world, events, Path(base), lease.staging if lease is not None else None).result()


@contextmanager
def _threads() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Training:
    """One process's part of a training. `staging` is None in all processes but the first, which alone writes."""

    def __init__(self, prepared: Prepared, folder: Path, world: World, events: Events, base: Path, staging: Path | None) -> None:
        self.prepared, self.spec, self.data = prepared, prepared.spec, prepared.data
        self.folder, self.world, self.events, self.base, self.staging = folder, world, events, base, staging
        self.device = models.choose_device(self.spec.device, world.local_rank)
        self.rows: list[dict[str, Any]] = []
        self.step = self.tokens = 0
        self.branch: int | None = None
        self.lowest: float | None = None

    def result(self) -> Trained:
        import torch

        self.begun = self._begin()
        torch.set_num_threads(self.begun.threads)
        if not self.world.share((self.folder / "model" / "manifest.json").is_file()):
            self._set_up()
            self._resume()
            self._loop()
            self._finish()
        self.world.share(None)
        return self._told()

    # -- beginning ------------------------------------------------------------------------------------------------

    def _begin(self) -> Begun:
        """training.json as it stands, or a new one; refuses a folder of another training."""
        import torch

        file = self.folder / "training.json"
        begun: Begun | None = None
        if self.world.leads and file.is_file():
            begun = msgspec.convert(read_sealed(file, dict[str, Any]), Begun)
        elif self.staging is not None:
            asked = self.spec.precision
            model = self.prepared.loaded.model
            chosen = asked if asked != "auto" else models.choose_precision(model, self.device, min(self.data.sequence_length, 512))
            begun = Begun(
                key=self.prepared.key, settings=self.spec.determining(), data=self.data.key, model=self.prepared.loaded.fingerprint,
                seed=self.prepared.seed, precision=chosen, threads=self.spec.threads or torch.get_num_threads(), versions=self.prepared.versions,
            )  # fmt: skip
        begun = self.world.share(begun)
        assert begun is not None
        if begun.key != self.prepared.key:
            raise ConfigError(f"{self.folder} holds the training of another recipe ({differences(begun, self.prepared)}); name another folder")
        if self.staging is not None and not file.is_file():
            write_table(self.folder / takedown.LEARNED, pa.table({IDENTITY: pa.array(identities(self.data), pa.string())}), self.staging)
            write_bytes(file, sealed(msgspec.to_builtins(begun)), self.staging)
        return begun

    def _set_up(self) -> None:
        """The model on its device, what is trained of it, and the optimizer."""
        import torch

        spec = self.spec
        model = self.prepared.loaded.model
        if spec.method != "full":
            model = adapters.adapt(model, spec.method, spec.adapter, seed=self.prepared.seed, steps=self.prepared.steps)
        adapters.choose(model, spec.train, spec.freeze)
        if spec.checkpoint_activations:
            base = self.prepared.loaded.model  # transformers renamed the method in version 5
            enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        self.model = (model if spec.method.lower() == "qlora" else model.to(self.device.torch)).train()  # 4 bits are on the device since loading
        self.budget = adapters.Budget(self.model)
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for name, p in named if adapters.decays(name, p)], "weight_decay": spec.weight_decay},
            {"params": [p for name, p in named if not adapters.decays(name, p)], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=spec.peak_rate(), betas=(spec.beta1, spec.beta2), eps=spec.epsilon, fused=True
        )
        self.parameters = [p for _, p in named]
        self.multiplied, self.trained = flops.multiplied(self.model)
        self.layers, self.width = flops.attended(self.model.config)
        self.peak = spec.peak_flops or flops.peak_of(self.device.name)
        self.keeps = "logits_to_keep" in inspect.signature(self.prepared.loaded.model.forward).parameters
        runner: Any = self.model
        if self.world.size > 1:
            places = [self.world.local_rank] if self.device.kind == "cuda" else None
            runner = torch.nn.parallel.DistributedDataParallel(self.model, device_ids=places)
        self.runner: Any = torch.compile(runner) if spec.compile else runner
        self.order = Order(
            len(self.data), spec.batch_sequences(self.data.sequence_length), spec.sequences(len(self.data), self.data.sequence_length),
            seed=self.prepared.seed, shuffle=not self.data.in_order if spec.shuffle is None else spec.shuffle,
        )  # fmt: skip
        self.sink = _tensorboard(self.folder) if spec.tensorboard and self.world.leads else None

    def _resume(self) -> None:
        """Go on from the last checkpoint of this folder, or from the one that a branch leaves."""
        own = checkpoint.found(self.folder / "checkpoints")
        trunk = (self.base / self.spec.branch_from) if self.spec.branch_from else None
        if trunk is not None:
            state = checkpoint.read_state(trunk)
            checkpoint.same_trunk(trunk, state, self.spec.determining(), self.data.key, self.prepared.loaded.fingerprint)
            self.branch = state.step
            if state.step >= self.prepared.steps:
                raise ConfigError(f"train.branch_from: the branch ends at step {self.prepared.steps}, before its beginning at {state.step}; raise steps")
        path = own[-1] if own else trunk
        if path is None:
            return
        state, allocator, metrics = checkpoint.load(path, model=self.model, optimizer=self.optimizer)
        if own and state.key != self.prepared.key:
            raise ConfigError(f"{path} is a checkpoint of another recipe; train into another folder")
        self.budget.restore(allocator, state.allocator)
        self.step, self.tokens, self.lowest, self.rows = state.step, state.tokens, state.lowest, metrics.to_pylist()
        self.events.emit("resumed", step=state.step, steps=self.prepared.steps)

    # -- the loop -------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        last_saved = time.monotonic()
        for number, batches, counts in ahead(self._work()):
            self._take(number, batches, *counts)
            self.step = number + 1
            due = self.step in self.spec.save_at or (self.spec.save_every is not None and self.step % self.spec.save_every == 0)
            late = self.spec.save_minutes is not None and time.monotonic() - last_saved > 60 * self.spec.save_minutes
            if due or late or self.step == self.prepared.steps:
                self._save()
                last_saved = time.monotonic()

    def _work(self) -> Iterator[tuple[int, list[Batch], tuple[int, int, int]]]:
        """The steps to take: each with this device's micro-batches and the step's labels, tokens and squared lengths in all."""
        for number in range(self.step, self.prepared.steps):
            chosen = self.order.step(number)
            own = shares(chosen, self.world.size)[self.world.rank]
            size = self.spec.micro_batch
            cut, flat = not self.spec.compile, self.spec.attention == "flash_attention_2"
            batches = [collate(self.data, own[at : at + size], cut=cut, flat=flat) for at in range(0, len(own), size)]
            if not len(own):  # a device without work in a short last step takes part with no label
                idle = collate(self.data, chosen[:1], cut=cut, flat=flat)
                batches = [Batch(idle.input_ids, idle.position_ids, np.full_like(idle.labels, IGNORED), 0, 0)]
            yield number, batches, _counts(self.data, chosen)

    def _take(self, number: int, batches: list[Batch], targets: int, tokens: int, squares: int) -> None:
        """One optimizer step and its row of metrics."""
        import torch

        started = time.perf_counter()
        rate = self.spec.peak_rate() * multiplier(
            self.spec.schedule, number, self.prepared.steps, warmup=share_of(self.spec.warmup_ratio, self.prepared.steps),
            decay=self.spec.decay_ratio, final=self.spec.final_ratio, branch=self.branch,
        )  # fmt: skip
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(randomness.stream(self.prepared.seed, "train", "step", str(number), str(self.world.rank)) & (1 << 63) - 1)
        total = 0.0
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            with self.runner.no_sync() if self.world.size > 1 and not last else nullcontext():
                total += self._backward(batch, max(targets, 1), last)
        [total] = self.world.total([total], self.device.torch)
        loss = total / targets if targets else None
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.spec.clip_norm or math.inf))
        self._watch(number, loss, norm)
        if targets:  # without a label there is nothing to learn, and decay alone would still shrink the weights
            self.optimizer.step()
            self.budget.after(number)
        self.optimizer.zero_grad(set_to_none=True)
        self.tokens += tokens
        seconds = time.perf_counter() - started
        work = tokens * flops.per_token(self.multiplied, self.trained, self.layers, self.width, squares / max(tokens, 1))
        row = {
            "step": number + 1, "epoch": min((number + 1) * self.order.batch, self.order.total) / len(self.data), "tokens": self.tokens,
            "targets": targets, "loss": loss, "bits_per_byte": self._bits(loss), "learning_rate": rate, "gradient_norm": norm,
            "forgetting": self._forgotten(number + 1), "seconds": seconds, "tokens_per_second": tokens / seconds,
            "mfu": work / seconds / (self.peak * self.world.size) if self.peak else None, "peak_bytes": self._peak_bytes(),
        }  # fmt: skip
        self.rows.append(row)
        self._tell(row)

    def _backward(self, batch: Batch, targets: int, last: bool) -> float:
        """Run one micro-batch forth and back; returns the sum of its labels' losses in nats."""
        import torch

        def place(array: Ints) -> Any:
            tensor = torch.from_numpy(array)
            return tensor.pin_memory().to(self.device.torch, non_blocking=True) if self.device.kind == "cuda" else tensor

        labels, more = batch.labels, {}
        columns = np.flatnonzero((labels != IGNORED).any(0))
        if self.keeps and not self.spec.compile and 0 < len(columns) < 0.9 * labels.shape[1]:
            labels, more = np.ascontiguousarray(labels[:, columns]), {"logits_to_keep": place(columns)}  # no logits where nothing is learned
        with models.autocast(self.device, self.begun.precision):
            logits = self.runner(input_ids=place(batch.input_ids), position_ids=place(batch.position_ids), use_cache=False, **more).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), place(labels).flatten(), ignore_index=IGNORED, reduction="sum")
        # DistributedDataParallel takes the mean over processes; the loss wants the sum
        scaled = loss * (self.world.size / targets)
        penalty = self.budget.penalty() if last else None
        (scaled if penalty is None else scaled + penalty).backward()
        return float(loss.detach())

    def _watch(self, number: int, loss: float | None, norm: float) -> None:
        """Stop where the loss is no number or has blown up, before the weights take the step; names the documents."""
        if loss is None:
            return
        recent = [row["loss"] for row in self.rows[-RECENT:] if row["loss"] is not None]
        if len(recent) == RECENT:
            self.lowest = min(self.lowest if self.lowest is not None else math.inf, statistics.fmean(recent))
        limit = self.spec.blow_up
        grown = limit is not None and self.lowest is not None and loss > self.lowest + limit
        if math.isfinite(loss) and math.isfinite(norm) and not grown:
            return
        names = list(dict.fromkeys(name for index in self.order.step(number) for name in self.data.documents(int(index))))
        why = f"the loss rose to {loss:.3f}, {limit} nats above {self.lowest:.3f}" if grown else f"loss {loss}, gradient norm {norm}"
        if self.staging is not None:
            told = {"step": number + 1, "why": why, "documents": names}
            write_bytes(self.folder / "diverged.json", msgspec.json.encode(told) + b"\n", self.staging)
        raise StageError(
            f"train: diverged at step {number + 1} of {self.prepared.steps}: {why}; the weights before it are kept. Lower learning_rate, or look at "
            f"the {len(names)} documents of its batch: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''} (all in {self.folder / 'diverged.json'})"
        )

    def _bits(self, loss: float | None) -> float | None:
        return loss / math.log(2) / self.data.bytes_per_token if loss is not None and self.data.bytes_per_token else None

    def _peak_bytes(self) -> int:
        if self.device.kind == "cuda":
            import torch

            return int(torch.cuda.max_memory_allocated())
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024

    def _forgotten(self, step: int) -> float | None:
        """The forgetting after a step where it is to be measured; the base is loaded for it and let go again."""
        asked = self.spec.forgetting
        if asked is None or not self.world.leads or not (step == self.prepared.steps or (asked.every is not None and step % asked.every == 0)):
            return None
        files = [self.base / file for file in ([asked.texts] if isinstance(asked.texts, str) else asked.texts)]
        tokenizer = models.load_tokenizer(self._tokenizer() or self.base / self.spec.model)
        rows = forgetting.sample(files, asked.text, tokenizer, documents=asked.documents, length=self.data.sequence_length)
        base = models.load_model(self.base / self.spec.model, attention=self.spec.attention, adapter=False).model.to(self.device.torch)
        return forgetting.measure(self.model, base, rows).cross_entropy

    def _tokenizer(self) -> Path | None:
        """The folder of the tokenizer that goes with the model: the data's, or where they bring none, the base model's."""
        if self.data.tokenizer is not None:
            return Path(self.data.tokenizer)
        folder = self.base / self.spec.model
        return folder if any((folder / name).is_file() for name in models.TOKENIZER_FILES) else None

    # -- saying and saving ----------------------------------------------------------------------------------------

    def _tell(self, row: dict[str, Any]) -> None:
        if not self.world.leads:
            return
        recent = [r["seconds"] for r in self.rows[-MEDIAN_OF:]]
        left = statistics.median(recent) * (self.prepared.steps - row["step"])
        self.events.emit("step", keep=False, steps=self.prepared.steps, seconds_left=round(left, 1), **row)
        if self.sink is not None:
            for name, value in row.items():
                if name not in ("step", "epoch") and value is not None:
                    self.sink.add_scalar(f"train/{name}", value, row["step"])

    def _table(self) -> pa.Table:
        return pa.Table.from_pylist(self.rows, METRICS)

    def _save(self) -> None:
        if self.staging is None:
            return
        tensors, more = self.budget.state()
        state = checkpoint.State(
            step=self.step, tokens=self.tokens, key=self.prepared.key, settings=self.spec.determining(), data=self.data.key,
            model=self.prepared.loaded.fingerprint, precision=self.begun.precision, lowest=self.lowest, allocator=more,
        )  # fmt: skip
        checkpoint.save(
            self.folder / "checkpoints", state, model=self.model, optimizer=self.optimizer, allocator=tensors, metrics=self._table(), staging=self.staging
        )
        checkpoint.prune(self.folder / "checkpoints", self.spec.keep_last, self.spec.save_at)
        write_table(self.folder / "metrics.parquet", self._table(), self.staging)

    def _finish(self) -> None:
        """The model's folder, written last: where it stands, the training is done."""
        if self.staging is None:
            return
        with uninterrupted():
            write_table(self.folder / "metrics.parquet", self._table(), self.staging)
            model = self.model.merge_and_unload() if self.spec.merge else self.model
            tokenizer = self._tokenizer()
            manifest = {
                "key": self.prepared.key, "data": self.data.key, "base": self.prepared.loaded.fingerprint, "seed": self.prepared.seed,
                "settings": self.spec.determining(), "precision": self.begun.precision, "versions": self.prepared.versions, "steps": self.step,
                "tokens": self.tokens, "loss": self.rows[-1]["loss"], "parameters": sum(p.numel() for p in self.model.parameters()),
                "trained_parameters": sum(p.numel() for p in self.parameters),
                "tokenizer": models.tokenizer_fingerprint(tokenizer) if tokenizer is not None else None,
            }  # fmt: skip
            models.save_model(model, self.folder / "model", tokenizer=tokenizer, manifest=manifest, staging=self.staging)
        if self.sink is not None:
            self.sink.close()

    def _told(self) -> Trained:
        rows = read_table(self.folder / "metrics.parquet").to_pylist()
        last = rows[-1]
        return Trained(
            folder=self.folder, model=self.folder / "model", metrics=self.folder / "metrics.parquet",
            checkpoints=checkpoint.found(self.folder / "checkpoints"), key=self.prepared.key, steps=last["step"], tokens=last["tokens"],
            loss=last["loss"], bits_per_byte=last["bits_per_byte"], tokens_per_second=_median(rows, "tokens_per_second"), mfu=_median(rows, "mfu"),
            peak_bytes=max(row["peak_bytes"] for row in rows), precision=self.begun.precision, device=self.device.name, forgetting=last["forgetting"],
        )  # fmt: skip


def _counts(data: Sequences, indices: Ints) -> tuple[int, int, int]:
    """Labels, tokens and squared lengths of documents of some sequences."""
    targets = tokens = squares = 0
    for index in indices.tolist():
        used = len(data.tokens(index))
        targets += int((labels_of(data, index) != IGNORED).sum())
        tokens += used
        squares += int((np.diff(np.append(data.starts(index), used)) ** 2).sum())
    return targets, tokens, squares


def _median(rows: list[dict[str, Any]], name: str) -> float | None:
    """The median of up to a hundred steps after the warm-up; of all where there are not more."""
    values = [row[name] for row in (rows[WARM_UP:] or rows) if row[name] is not None][:MEDIAN_OF]
    return statistics.median(values) if values else None


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("train.tensorboard: the package tensorboard is not installed; pip install tensorboard, or leave it out") from error
    return SummaryWriter(str(folder / "tensorboard"))
