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
from typing import Any

from curate.engine import described, receive, resolve, send
from curate.errors import InternalError, StageError, told


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
        answer: tuple[str, Any]
        what = "a worker"
        try:
            message = receive(inbound)
        except EOFError:
            return
        except Exception as error:
            message = error
        try:
            if isinstance(message, Exception):
                raise message
            function, task = message
            what = described(task)
            answer = ("done", resolve(function)(task))
        except Exception as error:
            if os.environ.get("CURATE_TRACEBACK"):
                traceback.print_exc()
            answer = ("error", told(error, what, StageError))
        try:
            send(outbound, (*answer, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
        except BrokenPipeError:
            return
        except Exception as error:  # the answer does not travel; nothing of it was sent
            send(outbound, ("error", InternalError(f"a worker's answer could not be sent: {type(error).__name__}: {error}"), 0))


def _die_with_parent() -> None:
    """Ask Linux to kill us when the parent dies, so that no orphan goes on writing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.environ.get("CURATE_PARENT", str(os.getppid())) != str(os.getppid()):
        raise SystemExit(1)  # the parent died before we could ask


if __name__ == "__main__":
    main()
