"""Choose the data that language models are trained on: score, select, publish, and prove that it beats random.

    import curate
    result = curate.run("recipe.yaml", run="runs/tonight")
    result.sql("SELECT source, count(*) FROM selected GROUP BY 1")

Everything is imported when it is first used, so `import curate` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from curate.api import Result, check, dedup, open_run, run, score, select
    from curate.catalog import OpenRun
    from curate.errors import (
        ConfigError,
        CurateError,
        DataError,
        InternalError,
        MachineError,
        RunHeldError,
        StageError,
    )
    from curate.pipelines.compare import compare

_PLACES = {
    "Result": "curate.api", "check": "curate.api", "dedup": "curate.api", "open_run": "curate.api", "run": "curate.api", "score": "curate.api",
    "select": "curate.api", "OpenRun": "curate.catalog", "compare": "curate.pipelines.compare", "ConfigError": "curate.errors",
    "CurateError": "curate.errors", "DataError": "curate.errors", "InternalError": "curate.errors", "MachineError": "curate.errors",
    "RunHeldError": "curate.errors", "StageError": "curate.errors",
}  # fmt: skip

__all__ = [
    "ConfigError", "CurateError", "DataError", "InternalError", "MachineError", "OpenRun", "Result", "RunHeldError", "StageError", "__version__",
    "check", "compare", "dedup", "open_run", "run", "score", "select",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'curate' has no attribute {name!r}")
