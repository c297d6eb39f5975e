"""The errors a user can meet, named by consequence; each carries its exit code.

Messages say what was expected, what came, where (file, row, recipe path) and how to fix it.
"""

from __future__ import annotations


class CurateError(Exception):
    """Base of all errors that are reported without a traceback."""

    exit_code = 1


class ConfigError(CurateError):
    """The recipe, or the words of the call, are wrong. Nothing was read or written."""

    exit_code = 2


class DataError(CurateError):
    """The data are bad; the message names the file and the row."""

    exit_code = 3


class StageError(CurateError):
    """A stage failed; the message names the stage, and the cause is chained."""

    exit_code = 1


class InternalError(CurateError):
    """A promise of this program was broken (rows do not balance, a worker died twice)."""

    exit_code = 1


class RunHeldError(CurateError):
    """Another process holds the run folder; the same command may succeed later."""

    exit_code = 75


def interrupted(error: BaseException | None) -> bool:
    """Whether an error is Ctrl-C as DuckDB tells it: it swallows the KeyboardInterrupt and raises a RuntimeError."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, RuntimeError) and "Query interrupted" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
