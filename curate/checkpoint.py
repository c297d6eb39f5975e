"""Checkpoints: everything that a training needs to go on as if it had never stopped, in a folder that exists or does not.

    step-00000100/   model.safetensors      the trained parameters and the buffers, in their own precision
                     optimizer.safetensors  AdamW's moments and steps by parameter
                     metrics.parquet        a row for each step so far
                     state.json             step, tokens, settings, data, sealed with its hash; written last

There is no pickle in it. Randomness is drawn anew in every step from (seed, step, device), and the data's order is a function of
the step, so the step is the cursor of both.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Set
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import ConfigError
from curate.store import damaged, read_sealed, read_table, sealed, sync, writing
from curate.trainspec import OF_A_BRANCH

_STEP = re.compile(r"step-(\d{8})\Z")
#: What is random in a step, and how a checkpoint has it.
RNG = "torch.manual_seed(stream(seed, 'train', 'step', step, rank)) before each step"


class State(msgspec.Struct, kw_only=True):
    """What a checkpoint says beside its tensors. `step` is how many steps were taken."""

    step: int
    tokens: int
    key: str  # of the training
    settings: dict[str, Any]
    data: str
    model: str  # fingerprint of what training began with
    precision: str
    lowest: float | None  # the lowest mean loss of 20 steps, for divergence
    allocator: dict[str, Any] = {}
    rng: str = RNG


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(p for p in folder.iterdir() if _STEP.match(p.name)) if folder.is_dir() else []


def save(folder: Path, state: State, *, model: Any, optimizer: Any, allocator: dict[str, Any], metrics: pa.Table, staging: Path) -> Path:
    """Write the checkpoint of a step under a staging name, sync it, and rename it into `folder`; returns its folder."""
    name = f"step-{state.step:08d}"
    making, final = staging / name, folder / name
    with writing(final):
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        folder.mkdir(exist_ok=True)
        _put_tensors(kept(model), making / "model.safetensors")
        tensors = {f"moments/{key}": value for key, value in moments(model, optimizer).items()}
        tensors |= {f"allocator/{key}": value.detach().contiguous().clone() for key, value in allocator.items()}
        _put_tensors(tensors, making / "optimizer.safetensors")
        pq.write_table(metrics, making / "metrics.parquet", compression="zstd", write_page_checksum=True)
        (making / "state.json").write_bytes(sealed(msgspec.to_builtins(state)))
        for path in [*sorted(making.iterdir()), making]:
            sync(path)
        shutil.rmtree(final, ignore_errors=True)
        making.rename(final)
        sync(folder)
    return final


def kept(model: Any) -> dict[str, Any]:
    """The trained parameters and the persistent buffers of a model, by name."""
    tensors = {name: p for name, p in model.named_parameters() if p.requires_grad}
    lasting = model.state_dict().keys()
    tensors |= {name: b for name, b in model.named_buffers() if name in lasting}
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def moments(model: Any, optimizer: Any) -> dict[str, Any]:
    """The optimizer's tensors as `<parameter>/<what>`."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{names[id(p)]}/{what}": value.detach().cpu().contiguous().clone()
        for group in optimizer.param_groups
        for p in group["params"]
        for what, value in optimizer.state.get(p, {}).items()
    }


def read_state(path: Path) -> State:
    """What a checkpoint says; DataError where it is damaged."""
    try:
        return msgspec.convert(read_sealed(path / "state.json", dict[str, Any]), State)
    except FileNotFoundError as error:
        raise ConfigError(f"expected a checkpoint, a folder step-... with a state.json, got {path}") from error
    except msgspec.ValidationError as error:
        raise damaged(path / "state.json", str(error)) from error


def load(path: Path, *, model: Any, optimizer: Any) -> tuple[State, dict[str, Any], pa.Table]:
    """Put a checkpoint's tensors into a model and its optimizer; returns its state, the allocator's tensors and the metrics."""
    state = read_state(path)
    parameters = dict(model.named_parameters())
    put(path, model, {name for name, p in parameters.items() if p.requires_grad})
    tensors = _tensors(path / "optimizer.safetensors")
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "moments":
            name, _, what = rest.rpartition("/")
            place = parameters[name]
            # fused AdamW keeps its count of steps on the parameter's device, like the moments
            optimizer.state[place][what] = value.to(place.device)
    allocator = {key.removeprefix("allocator/"): value for key, value in tensors.items() if key.startswith("allocator/")}
    return state, allocator, read_table(path / "metrics.parquet")


def put(path: Path, model: Any, trained: Set[str] = frozenset()) -> None:
    """Put a checkpoint's weights into a model of the same parameters: the training's final model becomes what it was at that step.

    Raises ConfigError where the model lacks a parameter of the checkpoint, or the checkpoint one of `trained`.
    """
    import torch

    weights = _tensors(path / "model.safetensors")
    places = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    odd = sorted((trained - weights.keys()) | (weights.keys() - places.keys()))
    odd = odd or [name for name, tensor in weights.items() if tensor.shape != places[name].shape]
    if odd:
        raise ConfigError(f"{path} is a checkpoint of other parameters ({', '.join(odd[:3])}); train into another folder")
    with torch.no_grad():
        for name, tensor in weights.items():
            places[name].copy_(tensor)


def _tensors(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise damaged(file, str(error)) from error


def _put_tensors(tensors: dict[str, Any], file: Path) -> None:
    """Write tensors; what safetensors says of the system (a full disk) becomes the system's own error."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, file)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number.group(1)), os.strerror(int(number.group(1))), str(file)) from error


def same_trunk(path: Path, state: State, settings: dict[str, Any], data: str, model: str) -> None:
    """Refuse a checkpoint of another recipe as a branch's beginning: all but the schedule and its length must be the same."""
    other = [name for name in settings if name not in OF_A_BRANCH and state.settings.get(name) != settings[name]]
    told = [f"{name}: {state.settings.get(name)!r} there, {settings[name]!r} here" for name in other]
    if state.data != data:
        told.append("other data")
    if state.model != model:
        told.append("another model to begin with")
    if told:
        raise ConfigError(f"train.branch_from: {path} is a checkpoint of another recipe ({'; '.join(told)}); a branch changes schedule and length only")


def prune(folder: Path, keep_last: int, save_at: list[int]) -> None:
    """Remove all but the last checkpoints and those that were asked for by step."""
    all_of_them = found(folder)
    for path in all_of_them[:-keep_last]:
        if int(path.name.removeprefix("step-")) not in save_at:
            aside = path.with_name(f".{path.name}.gone")
            path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
