"""`python -m curate` is the command."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys

#: What main() ends with after Ctrl-C or SIGTERM.
INTERRUPTED = 130


def start() -> None:
    """Start the command in surroundings that it may rely on: three open streams, and a Ctrl-C that is no traceback.

    A process that was started without standard output would give its number to the first file that it opens, and
    whatever is printed would go into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(opened, True)  # workers need it as much
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is done yet; main() takes over
    from curate.cli import main

    try:
        main()
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            raise
        _end(end.code or 0)


def _end(code: int) -> None:
    """End the process without taking Python down piece by piece: main() has said and flushed all that is to be said.

    DuckDB's binding counts what is left of it then, and writes pages on standard error where torch still holds some, or
    where its import was interrupted. What libraries registered for the end is done, unless the user is waiting for it.
    """
    if code != INTERRUPTED:
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    start()
