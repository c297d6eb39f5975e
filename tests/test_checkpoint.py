"""Checkpoints: whole or not there, and refused where they are another's or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny_training import TINY, data, spec

from curate import checkpoint
from curate.errors import ConfigError, DataError, MachineError
from curate.training import Trained, train


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(data(), spec(steps=3, save_at=[1, 2]), tmp_path_factory.mktemp("c") / "t")


def test_it_holds_what_going_on_needs_and_no_pickle(done: Trained) -> None:
    path = done.checkpoints[0]
    assert sorted(p.name for p in path.iterdir()) == ["metrics.parquet", "model.safetensors", "optimizer.safetensors", "state.json"]
    state = checkpoint.read_state(path)
    assert (state.step, state.key, state.data, state.precision) == (1, done.key, data().key, "fp32")
    assert state.tokens == checkpoint.read_table(path / "metrics.parquet")["tokens"].to_pylist()[-1]


@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "optimizer.safetensors"])
def test_a_damaged_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
    trained = train(data(), spec(steps=1), tmp_path / "t")
    (trained.model / "manifest.json").unlink()
    file = trained.checkpoints[0] / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if name == "state.json" else 9] ^= 0x55
    file.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        train(data(), spec(steps=1), tmp_path / "t")


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a checkpoint, a folder step-"):
        checkpoint.read_state(tmp_path)


def test_other_parameters_are_refused(done: Trained, tmp_path: Path) -> None:
    from curate import models

    model = models.build_model(48, seed=0, config={**TINY, "num_hidden_layers": 3}).model
    with pytest.raises(ConfigError, match="checkpoint of other parameters"):
        checkpoint.load(done.checkpoints[0], model=model, optimizer=torch.optim.AdamW(model.parameters()))


def test_pruning_keeps_the_last_and_the_asked_for(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        (tmp_path / f"step-{step:08d}").mkdir()
    (tmp_path / "step-odd").mkdir()
    checkpoint.prune(tmp_path, 2, [2])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000004", "step-00000005", "step-odd"]


def test_the_final_model_becomes_what_it_was_at_a_saved_step(done: Trained) -> None:
    from curate import models

    model = models.load_model(done.model).model
    after = {name: p.detach().clone() for name, p in model.named_parameters()}
    checkpoint.put(done.checkpoints[0], model)
    saved = load_file(done.checkpoints[0] / "model.safetensors")
    assert all(torch.equal(p, saved[name]) for name, p in model.named_parameters())
    assert not any(torch.equal(p, after[name]) for name, p in model.named_parameters())
    with pytest.raises(ConfigError, match="checkpoint of other parameters"):
        checkpoint.put(done.checkpoints[0], models.build_model(48, seed=0, config={**TINY, "hidden_size": 16}).model)


def test_a_full_disk_is_the_machines_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(MachineError, match=r"checkpoints/step-00000001.*No space left on device; free space there"):
        train(data(), spec(steps=1), tmp_path / "t")
    monkeypatch.undo()
    assert not checkpoint.found(tmp_path / "t" / "checkpoints")
    assert train(data(), spec(steps=1), tmp_path / "t").steps == 1
