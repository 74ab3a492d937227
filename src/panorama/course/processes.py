"""Watching and ending the processes of a chapter."""

import os
import signal
import threading

import psutil


class Monitor(threading.Thread):
    """Samples the resident memory of the kernel and its children; kills them beyond `limit_mb`.

    On Linux, memory that several processes share is divided among them, so that it counts once;
    elsewhere it counts for each.
    """

    def __init__(self, pid: int, limit_mb: float | None, interval: float = 0.2):
        super().__init__(daemon=True)
        self.kernel, self.limit_mb, self.interval = psutil.Process(pid), limit_mb, interval
        self.pause = interval
        self.peak_mb, self.cpu_seconds, self.exceeded = 0.0, 0.0, False
        self.stopped = threading.Event()

    def run(self):
        while not self.stopped.wait(self.pause):
            self.sample()

    def sample(self):
        """Look once. A process that is gone counts nothing; its CPU time is in its parent's."""
        resident, cpu = 0, 0.0
        try:
            family = [self.kernel, *self.kernel.children(recursive=True)]
        except psutil.Error:
            return
        for process in family:
            try:
                resident += process.memory_info().rss
                times = process.cpu_times()
                cpu += times.user + times.system
                if process is self.kernel:
                    cpu += times.children_user + times.children_system
            except (psutil.Error, AttributeError):
                continue
        self.pause = self.interval
        if len(family) > 1 and resident / 1e6 > self.peak_mb:
            resident = sum(map(share_of, family))
            self.pause = 5 * self.interval  # the look takes the kernel of the system a while
        self.peak_mb = max(self.peak_mb, resident / 1e6)
        self.cpu_seconds = max(self.cpu_seconds, cpu)
        if self.limit_mb and self.peak_mb > self.limit_mb and not self.exceeded:
            self.exceeded = True
            kill_tree(self.kernel.pid)

    def stop(self):
        """One last look (the kernel must still be alive), then the end."""
        self.sample()
        self.stopped.set()


def share_of(process: psutil.Process) -> int:
    """Resident bytes, shared ones divided by the number of processes (Linux); 0 if it is gone."""
    try:
        memory = process.memory_full_info()
    except psutil.Error:
        return 0
    return getattr(memory, "pss", memory.rss)


def kill_tree(pid: int | None) -> None:
    """Kill a process and all that it started. Nothing happens if it is gone."""
    if pid is None:
        return
    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
    except psutil.Error:
        return
    for member in family:
        try:
            os.kill(member.pid, signal.SIGKILL)
        except OSError:
            continue
