"""The compiled modules do what the Python ones do, and are never used when they are older than these."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zephyr.accelerator.finder import AcceleratorError, Finder, enable
from zephyr.accelerator.manifest import Manifest, extension_suffix, misfit, read
from zephyr.accelerator.modules import MODULES, digests, source_of

ZEPHYR = (sys.executable, "-m", "zephyr")
SAME_FOR_BOTH = (
    "tests/unit/bridge/test_pgoutput.py",
    "tests/unit/bridge/test_encode.py",
    "tests/unit/bridge/test_pump.py",
    "tests/unit/bridge/test_domain_event.py",
    "tests/property/test_plan.py",
    "tests/property/test_pgoutput.py",
    "tests/property/test_bridge.py",
    "tests/unit/realtime",
    "tests/property/test_hub.py",
    "tests/property/test_broadcasts.py",
    "tests/property/test_lean.py",
    "tests/property/test_cursor.py",
)


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "ZEPHYR_ACCELERATOR"} | environment
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=580, check=False)


@pytest.fixture(scope="module")
def _built() -> None:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    done = run(*ZEPHYR, "accelerator", "build")
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_built")
def test_the_same_tests_hold_for_the_compiled_modules() -> None:
    done = run(sys.executable, "-m", "pytest", "-q", *SAME_FOR_BOTH, ZEPHYR_ACCELERATOR="require")
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_built")
def test_they_are_what_the_command_uses() -> None:
    code = "from zephyr.entry import enable; enable(); import bridge.plan as m, bridge.run as r; print(m.__file__, r.__file__)"
    compiled, plain = run(sys.executable, "-c", code).stdout.split()
    assert compiled.endswith(extension_suffix())
    assert plain.endswith(".py")
    assert run(*ZEPHYR, "accelerator", "status").stdout == "on\n"
    off = run(*ZEPHYR, "accelerator", "status", ZEPHYR_ACCELERATOR="off")
    assert (off.returncode, off.stdout) == (1, "off: off by ZEPHYR_ACCELERATOR\n")


def test_an_unknown_choice_is_an_error() -> None:
    done = run(*ZEPHYR, "--version", ZEPHYR_ACCELERATOR="fast")
    assert done.returncode == 2
    assert done.stderr == "error: ZEPHYR_ACCELERATOR is 'fast': one of auto, off, require is wanted\n"


def manifest_of(at: Path, **changes: object) -> Manifest:
    files = {module: f"{module}{extension_suffix()}" for module in MODULES}
    for name in files.values():
        (at / name).touch()
    fields = {"suffix": extension_suffix(), "compiler": "c", "sources": digests(), "files": files} | changes
    return Manifest(**fields)  # type: ignore[arg-type]


def test_what_does_not_fit_is_not_used(tmp_path: Path) -> None:
    assert misfit(read(tmp_path), tmp_path) == "not built"
    manifest = manifest_of(tmp_path)
    manifest.write(tmp_path)
    assert read(tmp_path) == manifest
    assert misfit(manifest, tmp_path) == ""
    edited = digests() | {"bridge.plan": "0"}
    assert misfit(manifest_of(tmp_path, sources=edited), tmp_path) == "older than its sources (bridge.plan)"
    assert "another Python" in misfit(manifest_of(tmp_path, suffix=".x.so"), tmp_path)
    (tmp_path / manifest.files["bridge.plan"]).unlink()
    assert "incomplete" in misfit(manifest, tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    assert read(tmp_path) is None
    (tmp_path / "manifest.json").write_text(json.dumps({"older": "form"}))
    assert read(tmp_path) is None


def test_each_module_has_its_source() -> None:
    assert all(source_of(module).is_file() for module in MODULES)
    assert Finder(Path(), {}).find_spec("bridge.plan") is None


def test_required_and_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("zephyr.accelerator.finder.folder", lambda: tmp_path)
    monkeypatch.setenv("ZEPHYR_ACCELERATOR", "require")
    with pytest.raises(AcceleratorError, match="not built: zephyr accelerator build"):
        enable()
    monkeypatch.setenv("ZEPHYR_ACCELERATOR", "auto")
    assert enable() == "not built"


def test_without_a_compiler_the_error_says_what_to_install() -> None:
    done = run(*ZEPHYR, "accelerator", "build", "--force", CC="/nowhere/cc")
    assert done.returncode == 1
    assert "there is no C compiler /nowhere/cc" in done.stderr
    assert "gcc python3-dev" in done.stderr
