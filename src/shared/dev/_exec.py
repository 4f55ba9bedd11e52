"""Become another program that dies with its parent. Run as a script, by path: it imports nothing.

Arguments: the parent's process id, the signal to receive at its death, the user and group id to
become (empty: stay), and the command. A program of its own, because code between fork and exec
(`preexec_fn`) may deadlock in a process with threads.
"""

import os
import sys


def main() -> None:
    """Never returns: either the command runs, or this ends with an error."""
    parent, signal_number, user, group, *command = sys.argv[1:]
    libc = None
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - other systems go without

        libc = ctypes.CDLL(None)  # loaded while we are still sure to reach it
    if user:
        os.setgroups([])
        os.setgid(int(group))
        os.setuid(int(user))
    if libc is not None:
        # prctl(2), PR_SET_PDEATHSIG = 1. It comes after setuid, which clears it.
        libc.prctl(1, int(signal_number), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent ended before its child began")
    os.execvp(command[0], command)  # noqa: S606 - the caller's command, without a shell


if __name__ == "__main__":
    main()
