"""The copy of Postgres' binaries that every user can reach."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from zephyr.stack.errors import PlaceUnsafe
from zephyr.stack.open_copy import open_copy, open_to_all


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A system's temporary folder of the test's own, that all can enter."""
    with tempfile.TemporaryDirectory(prefix="zephyr-test-") as name:
        folder = Path(name)
        folder.chmod(0o1777)
        monkeypatch.setattr("tempfile.tempdir", name)
        yield folder


@pytest.fixture
def install(tmp_path: Path) -> Path:
    """Something like the wheel, closed to others."""
    files = {
        "site/wheel/pginstall/bin/postgres": 0o700,
        "site/wheel/pginstall/share/some.conf": 0o600,
        "site/wheel/pginstall/include/some.h": 0o600,
        "site/wheel.libs/libpq.so": 0o700,
    }
    for name, mode in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(name)
        path.chmod(mode)
    return tmp_path / "site/wheel/pginstall"


def test_knows_what_all_can_reach(tmp_path: Path, temporary: Path) -> None:
    path = temporary / "folder" / "program"
    path.parent.mkdir(mode=0o755)
    path.touch(mode=0o755)
    assert open_to_all(path)
    path.chmod(0o750)
    assert not open_to_all(path)
    path.chmod(0o755)
    path.parent.chmod(0o700)
    assert not open_to_all(path)


def test_copies_what_is_needed_and_opens_it(install: Path, temporary: Path) -> None:
    copy = open_copy(install, "1.0")
    assert copy.is_relative_to(temporary)
    assert open_to_all(copy / "bin" / "postgres")
    assert (copy / "share" / "some.conf").stat().st_mode & 0o777 == 0o644
    assert not (copy / "include").exists()
    assert (copy.parent.parent / "wheel.libs" / "libpq.so").is_file()
    assert install.parent.stat().st_mode & 0o777 == 0o755 & ~_umask()


def test_uses_a_copy_again_but_no_damaged_one(install: Path, temporary: Path) -> None:
    copy = open_copy(install, "1.0")
    before = copy.stat().st_ino
    assert open_copy(install, "1.0").stat().st_ino == before
    (copy / "share" / "some.conf").unlink()
    assert open_copy(install, "1.0").stat().st_ino != before
    assert (copy / "share" / "some.conf").is_file()
    assert [path.name for path in copy.parents[2].iterdir()] == ["postgres-1.0"]


def test_refuses_a_place_that_is_not_its_own(install: Path, temporary: Path, tmp_path: Path) -> None:
    place = temporary / f"zephyr-{os.geteuid()}"
    place.symlink_to(tmp_path)
    with pytest.raises(PlaceUnsafe, match="is not a folder that belongs to this user"):
        open_copy(install, "1.0")
    place.unlink()
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(PlaceUnsafe, match="mode 755"):
        open_copy(install, "1.0")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
