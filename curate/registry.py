"""The stages by name, filled by one decorator; and stages from a user's own file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from curate.errors import ConfigError
from curate.params import did_you_mean

T = TypeVar("T", bound=type)

#: Where a module made of a user's file holds the hash of the source that was run.
_HASH = "__curate_source_hash__"
STAGES: dict[str, type] = {}
#: The modules that register stages: imported when a stage is first looked up, never by the core.
BUILT_IN = (
    "curate.documents",
    "curate.licenses",
    "curate.scorers.dsir",
    "curate.scorers.color_filter",
    "curate.scorers.compression_ratio",
    "curate.scorers.embed",
    "curate.scorers.guide_similarity",
    "curate.scorers.gzip_knn",
    "curate.scorers.ifd",
    "curate.scorers.lm",
    "curate.scorers.token_count",
    "curate.scorers.zipfit",
    "curate.scorers.zipfit_fast",
    "curate.pipelines.c4",
    "curate.pipelines.code_rules",
    "curate.pipelines.cover",
    "curate.pipelines.d4",
    "curate.pipelines.decontaminate",
    "curate.pipelines.fineweb_quality",
    "curate.pipelines.gopher_quality",
    "curate.pipelines.gopher_repetition",
    "curate.pipelines.instruction_rules",
    "curate.pipelines.language",
    "curate.pipelines.length",
    "curate.pipelines.dedup_exact",
    "curate.pipelines.minhash",
    "curate.pipelines.mix",
    "curate.pipelines.perplexity",
    "curate.pipelines.pii",
    "curate.pipelines.refinedweb_lines",
    "curate.pipelines.repeated_lines",
    "curate.pipelines.select",
    "curate.pipelines.semdedup",
)


def register(name: str) -> Callable[[T], T]:
    """Register a stage class under `name`; a second class of that name is refused, naming both modules."""

    def keep(cls: T) -> T:
        other = STAGES.get(name)
        if other is not None and other.__qualname__ != cls.__qualname__:
            raise ConfigError(f"two stages are named {name!r}: {other.__module__} and {cls.__module__}")
        cls.name = name  # type: ignore[attr-defined]
        STAGES[name] = cls
        return cls

    return keep


def known() -> dict[str, type]:
    """The built-in stages that a recipe may name; those that every run begins with are not among them."""
    _import_built_in()
    return {name: cls for name, cls in sorted(STAGES.items()) if not getattr(cls, "internal", False)}


def _import_built_in() -> None:
    for module in BUILT_IN:
        importlib.import_module(module)


def lookup(name: str, base: Path | None = None) -> type:
    """Find a stage: a built-in's name, `package.module:Class`, or `file.py:Class` (relative to `base`)."""
    if ":" in name:
        return _from_outside(name, base or Path())
    _import_built_in()
    if name not in STAGES:
        raise ConfigError(f"unknown stage {name!r}{did_you_mean(name, known())}")
    return STAGES[name]


def source_hash(cls: type) -> str:
    """Hash of the file that defines an outside stage, so that editing it recomputes; '' for a built-in."""
    if getattr(cls, "name", None) in STAGES and STAGES[cls.name] is cls:  # type: ignore[attr-defined]
        return ""
    module = sys.modules.get(cls.__module__)
    known = getattr(module, _HASH, None)
    if known is not None:
        return str(known)
    file = getattr(module, "__file__", None)
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest() if file else ""


def _from_outside(name: str, base: Path) -> type:
    place, _, class_name = name.rpartition(":")
    if place.endswith(".py"):
        module = _module_of_file((base / place).resolve())
    else:
        try:
            module = importlib.import_module(place)
        except ImportError as error:
            raise ConfigError(f"stage {name!r}: cannot import {place!r}: {error}") from error
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        classes = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        ]
        raise ConfigError(
            f"stage {name!r}: {place} has no class {class_name!r}{did_you_mean(class_name, classes)}"
        )
    if not hasattr(cls, "name"):
        cls.name = class_name.lower()  # type: ignore[attr-defined]
    return cls


def _module_of_file(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"expected a Python file with a stage, got nothing at {path}")
    source = path.read_bytes()
    found = hashlib.blake2b(source, digest_size=16).hexdigest()
    # An edited file is another module: in a long session the code that runs is the code whose hash is in the key.
    name = f"curate_outside_{path.stem}_{hashlib.blake2b(f'{path}:{found}'.encode(), digest_size=6).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"cannot load {path} as a Python module")
    module = importlib.util.module_from_spec(spec)
    setattr(module, _HASH, found)
    sys.modules[name] = module
    try:
        # not by the loader, which may take a compiled file of the same second and size, and leaves one in the folder
        exec(compile(source, str(path), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{path} failed while it was imported: {type(error).__name__}: {error}") from error
    return module
