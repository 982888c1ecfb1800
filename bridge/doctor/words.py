"""Numbers as a person reads them."""

from __future__ import annotations


def size_text(size_bytes: float) -> str:
    """``1536`` as ``1.5 KiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.3g} {unit}" if size_bytes < 100 else f"{size_bytes:.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.3g} TiB"


def time_text(seconds: float) -> str:
    """``5400`` as ``1.5 h``."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (seconds >= length and unit != "days"):
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
