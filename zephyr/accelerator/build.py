"""Compiles the hot modules with mypyc, in a folder of its own, and puts them in their place.

mypyc and setuptools come with ``zephyr-realtime[accelerator]``; a C compiler and Python's
headers are the system's. What was there before stays until the new modules are whole.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from zephyr.accelerator.manifest import Manifest, extension_suffix, folder
from zephyr.accelerator.modules import MODULES, PACKAGES, digests, root

_GROUP = "zephyr_accelerator"
_LINES = 12
_TIME_LIMIT_S = 900
_MEND = (
    "install a C compiler and Python's headers (on Debian and Ubuntu: gcc python3-dev); "
    "without the accelerator all works as well, only slower"
)
_CONFIGURATION = """\
[mypy]
explicit_package_bases = True
namespace_packages = True
ignore_missing_imports = True
follow_imports = silent
"""
_SETUP = """\
from mypyc.build import mypycify
from setuptools import setup

setup(
    name={group!r},
    packages=[],
    ext_modules=mypycify(
        ["--config-file", "mypy.ini", "--cache-dir", "cache", *{files!r}],
        opt_level="3",
        debug_level="0",
        group_name={group!r},
    ),
)
"""


class BuildFailed(Exception):
    """The modules could not be compiled; the message says why, and ``mend`` what helps."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


def build() -> Manifest:
    """Compiles the modules as they are now. Takes about half a minute.

    Raises:
        BuildFailed: the compiler or mypyc is missing, or refused something.
    """
    if find_spec("mypyc") is None or find_spec("setuptools") is None:
        raise BuildFailed("mypyc is not installed", "pip install 'zephyr-realtime[accelerator]'")
    _need_compiler()
    at = folder()
    sources = digests()
    with tempfile.TemporaryDirectory(prefix="zephyr-accelerator-") as name:
        work = Path(name)
        _lay_out(work)
        _compile(work)
        made = {
            _module_of(path, work): path for path in sorted((work / "out").rglob(f"*{extension_suffix()}"))
        }
        lacking = set(MODULES) - made.keys()
        if lacking:
            raise BuildFailed(f"mypyc made nothing of {', '.join(sorted(lacking))}", "report this as a bug")
        manifest = Manifest(
            extension_suffix(),
            f"mypyc {_version()}",
            sources,
            {each: f"{each}{extension_suffix()}" for each in made},
        )
        _put(at, made, manifest)
    return manifest


def _need_compiler() -> None:
    compiler = shlex.split(os.environ.get("CC") or str(sysconfig.get_config_var("CC") or "cc"))[0]
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if shutil.which(compiler) is None:
        raise BuildFailed(f"there is no C compiler {compiler}", _MEND)
    if not header.is_file():
        raise BuildFailed(f"Python's headers are missing: {header}", _MEND)


def _lay_out(work: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(
            root() / package,
            work / package,
            ignore=lambda _, names: {each for each in names if each == "__pycache__"},
        )
    (work / "mypy.ini").write_text(_CONFIGURATION)
    files = [f"{module.replace('.', '/')}.py" for module in MODULES]
    (work / "setup.py").write_text(_SETUP.format(group=_GROUP, files=files))


def _compile(work: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "out", "--build-temp", "objects"]
    try:
        done = subprocess.run(
            command, cwd=work, capture_output=True, text=True, check=False, timeout=_TIME_LIMIT_S
        )
    except subprocess.TimeoutExpired as exc:
        raise BuildFailed(
            f"the compiler was not done after {_TIME_LIMIT_S} s", "try again on a quieter machine"
        ) from exc
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_LINES:])
        raise BuildFailed(f"the modules could not be compiled:\n{said}", _MEND)


def _module_of(path: Path, work: Path) -> str:
    relative = path.relative_to(work / "out").as_posix()
    return relative.removesuffix(extension_suffix()).replace("/", ".")


def _put(at: Path, made: dict[str, Path], manifest: Manifest) -> None:
    """Processes that run have the former files mapped: these are put aside as a folder, never written over."""
    try:
        fresh = Path(tempfile.mkdtemp(prefix=".compiled-", dir=at.parent))
    except OSError as exc:
        raise BuildFailed(
            f"{at.parent} cannot be written: {exc.strerror}", "build as the user who installed Zephyr"
        ) from exc
    for module, path in made.items():
        shutil.copy2(path, fresh / manifest.files[module])
    manifest.write(fresh)
    fresh.chmod(0o755)
    former = fresh.with_name(f"{fresh.name}-former")
    if at.exists():
        at.rename(former)
    fresh.rename(at)
    shutil.rmtree(former, ignore_errors=True)


def _version() -> str:
    try:
        return version("mypy")
    except PackageNotFoundError:
        return "of unknown version"
