"""`curate train`: a model is trained on token sequences, into a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from curate.errors import ConfigError
from curate.events import Listener
from curate.params import Problems, build
from curate.tokentable import TokenTable
from curate.trainspec import TrainSpec

if TYPE_CHECKING:
    from curate.training import Trained


def settings(words: Sequence[str]) -> dict[str, Any]:
    """`a.b=value` words as nested settings, values read as YAML."""
    found: dict[str, Any] = {}
    for word in words:
        path, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"--set {word}: expected a.b=value")
        *steps, last = path.removeprefix("train.").split(".")
        place = found
        for step in steps:
            place = place.setdefault(step, {})
        try:
            place[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {word}: expected a YAML value: {error}") from error
    return found


def spec_of(values: Mapping[str, Any]) -> TrainSpec:
    """Checked settings; every problem at once."""
    problems = Problems()
    spec = build(TrainSpec, dict(values), "train", problems)
    problems.raise_if_any("curate train")
    assert spec is not None
    return spec


def train(
    data: Path | str, *, out: Path | str | None = None, overrides: Sequence[str] = (), seed: int = 0, listener: Listener | None = None, wait: float = 0.0
) -> Trained:  # fmt: skip
    """Train on the sequences at `data` into `out` (by default models/<its name>); the same call again goes on where it was."""
    spec = spec_of(settings(overrides))
    if not Path(data).exists():
        raise ConfigError(f"expected token sequences, a Parquet file or a folder of some, got nothing at {data}")
    sequences = TokenTable(data)
    _have_torch()
    from curate import training

    folder = Path(out) if out is not None else Path("models") / Path(data).resolve().stem
    return training.train(sequences, spec, folder, seed=seed, listener=listener, base=Path.cwd(), wait=wait)


def _have_torch() -> None:
    import importlib.util

    missing = [name for name in ("torch", "transformers", "peft", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"curate train needs {', '.join(missing)}: pip install 'curate[train]'")
