"""Compiled modules in the place of the Python ones, for the process that asks for them.

Only the ``zephyr`` command does, before it imports anything else; whoever imports ``realtime`` or
``bridge`` into a program of their own gets plain Python.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from zephyr.accelerator.manifest import folder, misfit, read

VARIABLE = "ZEPHYR_ACCELERATOR"
_CHOICES = ("auto", "off", "require")


class AcceleratorError(Exception):
    """The compiled modules were asked for and cannot be used, or the setting is none."""


class Finder(MetaPathFinder):
    """Finds the modules of a manifest in their folder. ``files`` are file names by module."""

    def __init__(self, at: Path, files: dict[str, str]) -> None:
        self._at = at
        self._files = files

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the import system's interface
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """The compiled module, or None for any other."""
        file = self._files.get(fullname)
        if file is None:
            return None
        location = str(self._at / file)
        return spec_from_file_location(fullname, location, loader=ExtensionFileLoader(fullname, location))


def enable() -> str:
    """Uses the compiled modules, if ``ZEPHYR_ACCELERATOR`` allows it and they fit their sources.
    Gives why it does not; empty when it does.

    Raises:
        AcceleratorError: they are required and cannot be used; or the variable has another value.
    """
    choice = os.environ.get(VARIABLE, "") or "auto"
    if choice not in _CHOICES:
        raise AcceleratorError(f"{VARIABLE} is {choice!r}: one of {', '.join(_CHOICES)} is wanted")
    if choice == "off":
        return f"off by {VARIABLE}"
    at = folder()
    manifest = read(at)
    reason = misfit(manifest, at)
    if manifest is None or reason:
        if choice == "require":
            raise AcceleratorError(
                f"{VARIABLE}=require, and the accelerator is {reason}: zephyr accelerator build"
            )
        return reason
    if not is_enabled():
        taken = sorted(manifest.sources.keys() & sys.modules.keys())
        if taken:
            raise AcceleratorError(f"imported before the accelerator was enabled: {', '.join(taken)}")
        sys.meta_path.insert(0, Finder(at, manifest.files))
    return ""


def is_enabled() -> bool:
    """Whether this process takes compiled modules."""
    return any(isinstance(finder, Finder) for finder in sys.meta_path)
