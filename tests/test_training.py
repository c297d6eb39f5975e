"""The loop: what it learns, what it refuses, and that being killed changes nothing."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import train_kills
from safetensors.torch import load_file
from tiny_training import LENGTH, TINY, WORDS, data, spec

from curate import checkpoint, models
from curate.errors import ConfigError, RunHeldError, StageError
from curate.lease import held
from curate.packed import MemorySequences, collate
from curate.training import METRICS, OF_TIME, Trained, train

PROGRAM = Path(__file__).parent / "tiny_training.py"
TIMELESS = [n for n in METRICS.names if n not in OF_TIME]


def weights(folder: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "model.safetensors").items()}


def curve(file: Path) -> Any:
    return pq.read_table(file, columns=TIMELESS)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The undisturbed training that others are held against."""
    return train(data(), spec(save_at=[4, 8], save_every=2), tmp_path_factory.mktemp("done") / "t")


def test_it_learns(done: Trained) -> None:
    rows = pq.read_table(done.metrics).to_pylist()
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[0]["loss"] == pytest.approx(math.log(WORDS), abs=0.1)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.05
    assert rows[-1]["epoch"] == 1.0
    assert rows[-1]["tokens"] == sum(len(data().tokens(i)) for i in range(48))
    assert rows[3]["bits_per_byte"] == pytest.approx(rows[3]["loss"] / math.log(2) / 2)
    assert all(row["seconds"] > 0 and row["tokens_per_second"] > 0 and row["peak_bytes"] > 1e6 and row["mfu"] is None for row in rows)


def test_the_first_loss_is_that_of_the_untrained_model_over_the_labels_of_its_sequences(done: Trained) -> None:
    from curate.packed import Order

    model = models.build_model(WORDS, seed=0, config=TINY).model
    total, labels = 0.0, 0
    for index in Order(48, 4, 48, seed=0).step(0).tolist():
        tokens, mask = data().tokens(index), data().mask(index)
        bounds = [*data().starts(index).tolist(), len(tokens)]
        for start, stop in itertools.pairwise(bounds):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokens[start:stop].tolist()])).logits[0]
            for place in range(start + 1, stop):
                if mask[place]:
                    total -= float(torch.log_softmax(logits[place - 1 - start].double(), -1)[tokens[place]])
                    labels += 1
    row = pq.read_table(done.metrics).slice(0, 1).to_pylist()[0]
    assert row["targets"] == labels
    assert row["loss"] == pytest.approx(total / labels, rel=1e-5)


@pytest.mark.parametrize(("in_order", "shuffle", "kept"), [(True, None, True), (True, True, False), (False, None, False), (False, False, True)])
def test_data_with_an_order_are_read_in_it_unless_shuffled(in_order: bool, shuffle: bool | None, kept: bool, tmp_path: Path) -> None:
    # sequence i has i + 2 tokens, of which i + 1 are labels
    rows = [[(f"d{i}", list(range(i + 2)))] for i in range(12)]
    found = MemorySequences(rows, sequence_length=LENGTH, vocab_size=WORDS, in_order=in_order)
    done = train(found, spec(shuffle=shuffle), tmp_path / "t")
    targets = [row["targets"] for row in pq.read_table(done.metrics).to_pylist()]
    assert sum(targets) == sum(range(1, 13))
    assert (targets == [1 + 2 + 3 + 4, 5 + 6 + 7 + 8, 9 + 10 + 11 + 12]) is kept


def test_a_packed_document_has_the_logits_that_it_has_alone() -> None:
    model = models.build_model(WORDS, seed=1, config=TINY).model
    batch = collate(data(), np.arange(4))
    with torch.no_grad():
        packed = model(input_ids=torch.from_numpy(batch.input_ids), position_ids=torch.from_numpy(batch.position_ids), use_cache=False).logits
        for row in range(4):
            bounds = [*data().starts(row).tolist(), len(data().tokens(row))]
            for start, stop in itertools.pairwise(bounds):
                alone = model(input_ids=torch.from_numpy(batch.input_ids[row : row + 1, start:stop])).logits[0]
                torch.testing.assert_close(packed[row, start:stop], alone, rtol=1e-4, atol=1e-5)


def test_the_model_s_folder_is_an_ordinary_one_with_what_it_is(done: Trained) -> None:
    loaded = models.load_model(done.model)
    assert loaded.model.config.hidden_size == 32
    manifest = msgspec.json.decode((done.model / "manifest.json").read_bytes())
    assert manifest["key"] == done.key
    assert manifest["data"] == data().key
    assert manifest["steps"] == 12
    assert str(done.folder) not in (done.model / "manifest.json").read_text()


def test_the_same_call_again_does_nothing_and_tells_the_same(done: Trained) -> None:
    before = {p: p.stat().st_mtime_ns for p in done.folder.rglob("*") if p.is_file() and ".lease" not in str(p)}
    again = train(data(), spec(save_at=[4, 8], save_every=2), done.folder)
    assert (again.loss, again.steps, again.checkpoints) == (done.loss, done.steps, done.checkpoints)
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_checkpoints_asked_for_stay_and_of_the_others_the_last(done: Trained) -> None:
    assert [p.name for p in done.checkpoints] == ["step-00000004", "step-00000008", "step-00000012"]


def test_what_is_saved_when_leaves_the_result_as_it_is(done: Trained, tmp_path: Path) -> None:
    plain = train(data(), spec(save_at=[4, 8]), tmp_path / "t")
    assert weights(plain.model) == weights(done.model)
    assert curve(plain.metrics).equals(curve(done.metrics))


@pytest.mark.parametrize("stop", [4, 8])
def test_going_on_from_a_checkpoint_ends_bit_for_bit_as_never_stopped(stop: int, done: Trained, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "t"
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copyfile(done.folder / "training.json", folder / "training.json")
    shutil.copytree(done.folder / "checkpoints" / f"step-{stop:08d}", folder / "checkpoints" / f"step-{stop:08d}")
    heard: list[dict[str, Any]] = []
    resumed = train(data(), spec(save_at=[4, 8], save_every=2), folder, listener=heard.append)
    assert [e["step"] for e in heard if e["event"] == "resumed"] == [stop]
    assert weights(resumed.model) == weights(done.model)
    assert curve(resumed.metrics).equals(curve(done.metrics))


def test_a_killed_training_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole = train(data(), spec(save_every=1), tmp_path / "whole")
    process = subprocess.Popen([sys.executable, str(PROGRAM), str(tmp_path / "t"), "1"], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not checkpoint.found(tmp_path / "t" / "checkpoints"):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = train(data(), spec(save_every=1), tmp_path / "t")
    assert weights(resumed.model) == weights(whole.model)
    assert curve(resumed.metrics).equals(curve(whole.metrics))


@pytest.mark.slow
def test_twenty_random_kills_leave_no_trace() -> None:
    found = train_kills.kills(20, seed=1)
    assert found["bit_equal"] == found["kills"] == 20


def test_two_processes_see_the_sequences_that_one_sees(done: Trained, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    subprocess.run(
        [*launcher, str(PROGRAM), str(tmp_path / "t"), "100"], check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120
    )
    two, one = curve(tmp_path / "t" / "metrics.parquet").to_pylist(), curve(done.metrics).to_pylist()
    for a, b in zip(two, one, strict=True):
        assert (a["step"], a["tokens"], a["targets"]) == (b["step"], b["tokens"], b["targets"])
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    a_weights, b_weights = load_file(tmp_path / "t" / "model" / "model.safetensors"), load_file(done.model / "model.safetensors")
    for name, tensor in b_weights.items():
        torch.testing.assert_close(a_weights[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_decayed_branch_leaves_a_trunk(tmp_path: Path) -> None:
    trunk = train(data(), spec(schedule="constant", steps=6, save_at=[4]), tmp_path / "trunk")
    left = trunk.folder / "checkpoints" / "step-00000004"
    branch = train(data(), spec(schedule="linear", steps=8, branch_from=str(left)), tmp_path / "branch")
    rows, before = curve(branch.metrics).to_pylist(), curve(trunk.metrics).to_pylist()
    assert rows[:4] == before[:4]
    assert [row["learning_rate"] / 1e-3 for row in rows[4:]] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert rows[4]["loss"] == before[4]["loss"]
    with pytest.raises(ConfigError, match=r"another recipe.*beta1"):
        train(data(), spec(schedule="linear", steps=8, beta1=0.8, branch_from=str(left)), tmp_path / "other")
    with pytest.raises(ConfigError, match="ends at step 3, before its beginning at 4"):
        train(data(), spec(schedule="linear", steps=3, branch_from=str(left)), tmp_path / "short")


def test_a_folder_of_another_recipe_is_refused(done: Trained) -> None:
    with pytest.raises(ConfigError, match=r"training of another recipe \(schedule: 'cosine' there, 'linear' here\)"):
        train(data(), spec(schedule="linear", save_at=[4, 8]), done.folder)
    with pytest.raises(ConfigError, match="data: "):
        train(data(seed=1), spec(save_at=[4, 8]), done.folder)


def test_a_folder_that_another_process_trains_into_is_held(tmp_path: Path) -> None:
    with held(tmp_path / "t"), pytest.raises(RunHeldError):
        train(data(), spec(), tmp_path / "t")


def test_only_what_is_named_is_trained(tmp_path: Path) -> None:
    trained = train(data(), spec(steps=2, train=["*norm*"], save_at=[1]), tmp_path / "t")
    fresh = models.build_model(WORDS, seed=0, config=TINY).model.state_dict()
    moved = {name for name, value in load_file(trained.model / "model.safetensors").items() if not torch.equal(value, fresh[name])}
    assert moved == {name for name in fresh if "norm" in name}
    assert set(load_file(trained.checkpoints[0] / "model.safetensors")) == moved


def test_activation_checkpointing_and_smaller_passes_learn_the_same(done: Trained, tmp_path: Path) -> None:
    other = train(data(), spec(checkpoint_activations=True, micro_batch=1, steps=3), tmp_path / "t")
    plain = train(data(), spec(steps=3), tmp_path / "p")
    assert curve(other.metrics)["loss"].to_pylist() == pytest.approx(curve(plain.metrics)["loss"].to_pylist(), rel=1e-5)


def test_bf16_is_near_fp32(tmp_path: Path) -> None:
    half, full = (train(data(), spec(steps=2, precision=p), tmp_path / p) for p in ("bf16", "fp32"))
    assert half.precision == "bf16"
    assert half.loss == pytest.approx(full.loss, rel=0.02)
    assert half.loss != full.loss


def test_the_precision_is_tried_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    found = train(data(), spec(steps=1, precision="auto"), folder)
    assert found.precision in ("fp32", "bf16")
    assert checkpoint.read_state(found.checkpoints[-1]).precision == found.precision


def test_a_training_that_blows_up_stops_and_names_the_documents(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"diverged at step \d+ of 60.*doc\d+-0") as failed:
        train(data(), spec(steps=60, learning_rate=1e4, clip_norm=None, blow_up=1.0, schedule="constant", warmup_ratio=0.5), tmp_path / "t")
    told = msgspec.json.decode((tmp_path / "t" / "diverged.json").read_bytes())
    assert told["documents"][0] in str(failed.value)
    assert not (tmp_path / "t" / "model").exists()


def test_a_batch_without_a_label_moves_nothing(tmp_path: Path) -> None:
    silent = MemorySequences([[("a", [1, 2, 3], [0, 0, 0])]], sequence_length=4, vocab_size=4)
    trained = train(silent, spec(batch_tokens=4, steps=1), tmp_path / "t")
    fresh = models.build_model(4, seed=0, config=TINY).model.state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in load_file(trained.model / "model.safetensors").items())
    assert trained.loss is None


def test_response_only_rows_skip_the_logits_of_the_prompt_and_learn_the_same(tmp_path: Path) -> None:
    rows = [[("a", [1, 2, 3, 4, 5, 6, 7, 8], [0, 0, 0, 0, 0, 0, 1, 1])], [("b", [3, 4, 5, 6, 7, 8, 9, 10], [0, 0, 0, 0, 0, 0, 0, 1])]]
    short = MemorySequences(rows, sequence_length=8, vocab_size=16)
    trained = train(short, spec(batch_tokens=16, steps=1), tmp_path / "t")
    model = models.build_model(16, seed=0, config=TINY).model
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([rows[0][0][1], rows[1][0][1]])).logits.double().log_softmax(-1)
    assert trained.loss == pytest.approx(-float(logits[0, 5, 7] + logits[0, 6, 8] + logits[1, 6, 10]) / 3, rel=1e-5)


def test_tensorboard_that_is_not_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="tensorboard is not installed"):
        train(data(), spec(tensorboard=True), tmp_path / "t")


def test_the_callers_random_numbers_and_threads_are_left_alone(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(data(), spec(steps=1), tmp_path / "t")
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads
    assert data().sequence_length == LENGTH
