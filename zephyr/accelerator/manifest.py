"""What was compiled, from which sources and for which Python; and whether it fits what is here."""

from __future__ import annotations

import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from zephyr.accelerator.modules import digests

_NAME = "manifest.json"


def folder() -> Path:
    """Where the compiled modules lie."""
    return Path(__file__).resolve().parent / "compiled"


def extension_suffix() -> str:
    """How the file of a compiled module ends; it names the Python and the platform."""
    return str(sysconfig.get_config_var("EXT_SUFFIX"))


@dataclass(frozen=True, slots=True)
class Manifest:
    """``files`` are the compiled modules by name, one more than there are sources: mypyc's common part."""

    suffix: str
    compiler: str
    sources: dict[str, str]
    files: dict[str, str]

    def write(self, at: Path) -> None:
        """Written last, so that its presence means that all is there."""
        (at / _NAME).write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))


def read(at: Path) -> Manifest | None:
    """The manifest in a folder; None when there is none that can be read."""
    try:
        found = orjson.loads((at / _NAME).read_bytes())
        return Manifest(**found)
    except (OSError, orjson.JSONDecodeError, TypeError):
        return None


def misfit(manifest: Manifest | None, at: Path) -> str:
    """Why the compiled modules in a folder cannot be used now; empty when they can."""
    if manifest is None:
        return "not built"
    if manifest.suffix != extension_suffix():
        return f"built for another Python ({manifest.suffix})"
    try:
        changed = sorted({name for name, _ in manifest.sources.items() ^ digests().items()})
    except OSError as exc:
        return f"a source cannot be read: {exc}"
    if changed:
        return f"older than its sources ({', '.join(changed)})"
    missing = [name for name in manifest.files.values() if not (at / name).is_file()]
    return f"incomplete ({', '.join(missing)} missing)" if missing else ""
