"""Run one command and measure it: wall time, CPU, peak memory of the whole process tree.

Source: proc(5), `stat`, `statm` and `status`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.05
#: Python caches its byte code, as it does by default.
_ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
#: New children are searched for in the process table once per this number of samples.
_SEARCH_EVERY = 4


class CommandFailed(Exception):
    """The command ended with an error or took longer than allowed.

    `reason` has its last line, `output` all that it printed.
    """

    def __init__(self, reason: str, output: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}\n{output[-4000:]}")


@dataclass(frozen=True)
class Weight:
    """Of a process and all that it started. `output` is what it printed."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    output: str


def weigh(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    limit_seconds: float = 3600.0,
) -> Weight:
    """Run to the end. Raises `CommandFailed`."""
    started = time.perf_counter()
    path = folder / "output"
    with path.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**_ENVIRONMENT, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )
        watch = MemoryWatch(process.pid)
        limit = threading.Timer(limit_seconds, os.killpg, (process.pid, signal.SIGKILL))
        limit.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            limit.cancel()
            watch.stop()
    seconds = time.perf_counter() - started
    # A process that ended before it was looked at: the kernel's mark, which knows this one's, too.
    peak_bytes = watch.peak_bytes or usage.ru_maxrss * 1024
    text = path.read_text(errors="replace")
    if process.returncode:
        late = f"not done after {limit_seconds:g} s" if seconds >= limit_seconds else ""
        words = text.strip().splitlines()
        raise CommandFailed(
            late or f"exit {process.returncode}: {words[-1] if words else ''}", text
        )
    return Weight(seconds, usage.ru_utime + usage.ru_stime, peak_bytes / 1e6, text)


class MemoryWatch:
    """Highest resident memory of a process tree, sampled by a thread until `stop`.

    The kernel's own high-water mark counts for the root; the sum of all for a tree.
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        tree, turn = {self._pid}, 0
        while not self._ended.wait(_SAMPLE_SECONDS if turn else 0):
            if turn % _SEARCH_EVERY == 0:
                tree = process_tree(self._pid)
            turn += 1
            total = sum(map(_resident, tree))
            self.peak_bytes = max(self.peak_bytes, total, _high_water(self._pid))


def process_tree(root: int) -> set[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    tree, ahead = {root}, [root]
    while ahead:
        found = children.get(ahead.pop(), [])
        tree.update(found)
        ahead += found
    return tree


def cpu_seconds_of(root: int) -> float:
    """CPU of a process, of its children now, and of those that it has waited for."""
    ticks = 0
    for pid in process_tree(root):
        if fields := _stat(pid):
            ticks += sum(int(fields[n]) for n in ((11, 12, 13, 14) if pid == root else (11, 12)))
    return ticks / _TICKS


def _stat(pid: int) -> list[str]:
    """The fields of `stat` after the command's name; none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def _high_water(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
