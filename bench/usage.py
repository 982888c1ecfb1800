"""What processes cost, read from /proc (Linux)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
# In /proc/PID/stat after the name: proc(5).
_PARENT, _USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM = 1, 11, 12, 13, 14


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of all it started, those that have ended too; 0 when it is gone."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended just now
        number = int(entry.name)
        children.setdefault(int(stat[_PARENT]), []).append(number)
        ticks[number] = sum(int(stat[place]) for place in (_USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM))
    total, todo = 0, [pid]
    while todo:
        each = todo.pop()
        total += ticks.get(each, 0)
        todo.extend(children.get(each, ()))
    return total / _TICKS


def peak_memory_bytes(pid: int) -> int:
    """The most memory that the process itself ever had resident (VmHWM); 0 when it is gone."""
    return _status_bytes(pid, "VmHWM:")


def memory_bytes(pid: int) -> int:
    """The memory that the process itself has resident now (VmRSS); 0 when it is gone."""
    return _status_bytes(pid, "VmRSS:")


def _status_bytes(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    found = next((line for line in lines if line.startswith(name)), "none: 0 kB")
    return int(found.split()[1]) * 1024


class Meter:
    """What some processes use from now on."""

    def __init__(self, pids: Mapping[str, int | None]) -> None:
        self._pids = {name: pid for name, pid in pids.items() if pid is not None}
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time since, with all that they started."""
        return {name: round(cpu_seconds(pid) - self._before[name], 2) for name, pid in self._pids.items()}
