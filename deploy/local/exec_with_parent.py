"""Runs a command that must not outlive the process that started it.

Started as `python -I -S exec_with_parent.py PARENT_PID COMMAND…`, it asks the kernel for a SIGKILL on the death of
its parent and becomes the command, so that the pid is the command's own. It is a program because the
same call in `preexec_fn` would run Python between fork and exec of a threaded process, which can
deadlock. Only Linux has such a request; elsewhere the command runs untied.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become `command`; exits 127 where it cannot be run."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request was made
        sys.exit(f"The supervisor {parent} is gone; {command[0]} was not started.")
    # What the stack writes holds what users gave it; sockets, too, are for their owner alone.
    os.umask(0o077)
    # Python ignores SIGPIPE, and what is ignored stays ignored through exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]} cannot be run: {error}.", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
