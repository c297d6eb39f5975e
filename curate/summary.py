"""The summary of a run for machines: one JSON object in a file, also where the run failed.

    with Writer(Path("summary.json"), recipe="demo") as writer:
        writer.result = api.run("demo")
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from curate import __version__
from curate.errors import ConfigError, interrupted
from curate.outcome import summary
from curate.store import read_table, sweep_beside, write_atomically

if TYPE_CHECKING:
    from curate.api import Result

#: What is known only of a run that came to its end.
_OF_THE_END = ("unchanged", "documents", "kept", "bytes", "parts", "stages", "dropped", "published", "warnings")


class Writer:
    """Writes the summary when its block ends, however it ends; refuses a file that cannot be written before it begins."""

    def __init__(self, out: Path, *, recipe: str) -> None:
        self._out, self._recipe = out.resolve(), recipe
        self.result: Result | None = None
        self._started = time.time()
        self._clock = time.perf_counter()
        if self._out.is_dir():
            raise ConfigError(f"--summary-json: expected a file to write, got the folder {self._out}")
        if not self._out.parent.is_dir():
            raise ConfigError(f"--summary-json: expected a folder to write into, got nothing at {self._out.parent}")
        sweep_beside(self._out)
        trial = self._out.parent / f".{self._out.name}.{os.getpid()}.making"
        try:
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise ConfigError(f"--summary-json: cannot write into {self._out.parent}: {error.strerror}") from error

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        found: dict[str, Any] = {
            "curate": __version__, "recipe": self._recipe, "run": None, "started": round(self._started, 3),
            "seconds": round(time.perf_counter() - self._clock, 3), "exit_code": _exit_code(error),
            "error": None if error is None else {"kind": type(error).__name__, "message": str(error)},
        } | dict.fromkeys(_OF_THE_END)  # fmt: skip
        if error is None and self.result is not None:
            funnel = read_table(self.result.folder / "funnel.parquet").to_pylist()
            found |= summary(self.result.outcome, funnel) | {"seconds": found["seconds"]}
        content = msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"
        name = f".{self._out.name}.{os.getpid()}.making"
        write_atomically(self._out, lambda temporary: _put(temporary, content), self._out.parent, name=name)


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _exit_code(error: BaseException | None) -> int:
    """The exit code that the command will end with."""
    if error is None:
        return 0
    return 130 if interrupted(error) else int(getattr(error, "exit_code", 1))
