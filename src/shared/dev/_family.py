"""A process and all that came from it. Imported late: psutil belongs to the extra `dev`."""

import signal

import psutil


class Family:
    """The process and its descendants as they are now.

    Not its process group: each of PostgreSQL's processes makes a session of its own.
    """

    def __init__(self, pid: int) -> None:
        try:
            leader = psutil.Process(pid)
            self._members = [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            self._members = []

    def signal(self, number: signal.Signals) -> None:
        """Send the signal to every member that still exists; a reused process id is left alone."""
        for member in self._members:
            try:
                member.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def alive(self) -> bool:
        """Whether any member runs. A zombie does not: it waits for its new parent."""
        return any(_runs(member) for member in self._members)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
