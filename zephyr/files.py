"""Files that other programs read while we write them."""

from __future__ import annotations

import os
from pathlib import Path

import orjson


def write_json(path: Path, value: object) -> None:
    """Writes a file that is there whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    partial.replace(path)
