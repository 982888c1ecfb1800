"""The small history that comes along, for where there is none to replay.

``shipped.jsonl`` has one commit a line, oldest first:

    {"name": author's name, "email": address, "message": first line, "changes": [change, ...]}

where a change is ``{"add": path, "text": text}``, ``{"modify": path, "text": text}``,
``{"rename": path, "from": old path}`` (with ``"text"`` when that changes too) or
``{"delete": path}``. Paths and texts follow from the commits before, as in a repository.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from zephyr.demo.tree import Action, FileChange

FILE = Path(__file__).with_name("shipped.jsonl")


class ShippedReader:
    """Gives the changes of each line; keeps which note stands at which path."""

    def __init__(self) -> None:
        self._notes: dict[str, int] = {}
        self._count = 0

    def changes(self, line: dict[str, Any]) -> Iterator[FileChange]:
        """The line's changes.

        Raises:
            ValueError: a change does not follow from the lines before.
        """
        for change in line["changes"]:
            text = change.get("text")
            if "add" in change:
                path = change["add"]
                if path in self._notes:
                    raise ValueError(f"{path} is there already")
                self._count += 1
                self._notes[path] = self._count
                yield FileChange(Action.ADD, self._count, path, text)
            elif "modify" in change:
                path = change["modify"]
                yield FileChange(Action.MODIFY, self._at(path), path, text)
            elif "rename" in change:
                path, old = change["rename"], change["from"]
                number = self._at(old)
                if path in self._notes:
                    raise ValueError(f"{path} is there already")
                del self._notes[old]
                self._notes[path] = number
                yield FileChange(Action.RENAME, number, path, text, old)
            else:
                path = change["delete"]
                number = self._at(path)
                del self._notes[path]
                yield FileChange(Action.DELETE, number, path)

    def _at(self, path: str) -> int:
        if path not in self._notes:
            raise ValueError(f"{path} is not there")
        return self._notes[path]


def read_lines(file: Path = FILE) -> list[dict[str, Any]]:
    """The lines of the shipped history: some sixty commits, a few kilobytes."""
    return [orjson.loads(line) for line in file.read_bytes().splitlines() if line]
