"""A worker process: `python -m curate.worker`. Reads tasks from standard input until it closes.

Whatever a stage prints goes to standard error, so that it cannot break the messages.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import traceback

from curate.engine import receive, resolve, send
from curate.errors import CurateError, StageError


def main() -> None:
    """Serve the process that started us, and die with it."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends us
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked until we could ignore it
    inbound = os.fdopen(os.dup(0), "rb")
    outbound = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    while True:
        try:
            function, task = receive(inbound)
        except EOFError:
            return
        try:
            answer = ("done", resolve(function)(task))
        except CurateError as error:
            answer = ("error", error)
        except Exception as error:
            answer = ("error", StageError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}"))
        try:
            send(outbound, (*answer, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
        except BrokenPipeError:
            return


def _die_with_parent() -> None:
    """Ask Linux to kill us when the parent dies, so that no orphan goes on writing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.environ.get("CURATE_PARENT", str(os.getppid())) != str(os.getppid()):
        raise SystemExit(1)  # the parent died before we could ask


if __name__ == "__main__":
    main()
