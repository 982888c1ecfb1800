"""Becomes another program, after what only a process can do to itself.

Run as a script: ``launch.py PARENT DEATH_SIGNAL UID GID COMMAND...``. It drops to the user
(-1: stays), asks the kernel for ``DEATH_SIGNAL`` when the parent dies (Linux, prctl(2)), and
executes the command under the same process id. A hook between fork and exec could do the
same, but is not safe in a process with threads. Imports the standard library alone, since it
runs isolated (``-I -S``).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, death_signal, uid, gid = (int(word) for word in sys.argv[1:5])
    command = sys.argv[5:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # Only now: a change of user clears the death signal.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            # The parent died before the kernel knew of our wish.
            sys.exit("the process that started this one is gone")
    # Python ignores these two, and an ignored signal stays ignored through exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"error: cannot execute {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
