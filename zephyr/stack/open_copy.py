"""A copy of Postgres' binaries that every user can reach.

Postgres refuses to run as root, so root runs it as ``nobody``; and an environment under a
closed home cannot be entered by ``nobody``. Opening parent folders would change rights that
are not ours to change, so the binaries are copied once into the system's temporary folder.
That place is shared with everybody: the copy's parent must be a real folder, ours, writable
by us alone; a copy appears under its name whole or not at all, and is compared with its
origin before each use, since cleaners of temporary folders remove single old files.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from zephyr.stack.errors import PlaceUnsafe

PARTS_LEFT_OUT = "include"


def open_to_all(path: Path) -> bool:
    """Whether every user may read and execute ``path`` and enter all folders above it."""
    real = path.resolve()
    if real.stat().st_mode & 0o005 != 0o005:
        return False
    return all(parent.stat().st_mode & 0o001 for parent in real.parents)


def open_copy(install: Path, version: str) -> Path:
    """Gives a copy of ``install`` (``pginstall``) that all users can run, made when there is none.

    Raises:
        PlaceUnsafe: there is no place for it that is safe.
    """
    package = install.parent
    libraries = package.with_name(f"{package.name}.libs")
    place = _own_folder(_open_temporary_folder())
    target = place / f"postgres-{version}"
    # The libraries' relative path (rpath) is package/pginstall/bin → ../../../package.libs.
    copies = {
        install: target / package.name / install.name,
        libraries: target / libraries.name,
    }
    if not all(_same_files(origin, copy) for origin, copy in copies.items()):
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=place))
        try:
            for origin, copy in copies.items():
                if origin.is_dir():
                    _copy_open(origin, fresh / copy.relative_to(target))
            fresh.chmod(0o755)
            (fresh / package.name).chmod(0o755)
            _swap_in(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return copies[install]


def _open_temporary_folder() -> Path:
    candidates = [Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/tmp")]  # noqa: S108  checked below
    for candidate in candidates:
        if candidate.is_dir() and os.access(candidate, os.W_OK) and open_to_all(candidate):
            state = candidate.resolve().stat()
            # Without the sticky bit anybody who may write there could swap our folder for another.
            if state.st_mode & stat.S_ISVTX or not state.st_mode & 0o022:
                return candidate.resolve()
    raise PlaceUnsafe(
        "no temporary folder can be entered by all users, as Postgres needs when root starts it",
        "set TMPDIR to one that can, or run as an ordinary user",
    )


def _own_folder(parent: Path) -> Path:
    folder = parent / f"zephyr-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
    except FileExistsError:
        pass
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o777 != 0o755:
        raise PlaceUnsafe(
            f"{folder} is not a folder that belongs to this user with mode 755",
            "remove it, or set TMPDIR to another folder",
        )
    return folder


def _same_files(origin: Path, copy: Path) -> bool:
    """Whether each file of ``origin`` is in ``copy`` with the same size."""
    for folder, names, files in os.walk(origin):
        _leave_out(names)
        for name in files:
            path = Path(folder, name)
            twin = copy / path.relative_to(origin)
            try:
                if twin.stat().st_size != path.stat().st_size:
                    return False
            except FileNotFoundError:
                return False
    return True


def _copy_open(origin: Path, copy: Path) -> None:
    for folder, names, files in os.walk(origin):
        _leave_out(names)
        target = copy / Path(folder).relative_to(origin)
        target.mkdir(parents=True)
        target.chmod(0o755)
        for name in files:
            path = Path(folder, name)
            executable = path.stat().st_mode & stat.S_IXUSR
            shutil.copyfile(path, target / name)
            (target / name).chmod(0o755 if executable else 0o644)


def _leave_out(names: list[str]) -> None:
    if PARTS_LEFT_OUT in names:
        names.remove(PARTS_LEFT_OUT)


def _swap_in(fresh: Path, target: Path) -> None:
    """Gives ``fresh`` the name ``target``; what was there goes. Two at once: the last one stays."""
    for _ in range(10):
        try:
            fresh.rename(target)
            return
        except OSError:
            old = Path(tempfile.mkdtemp(prefix=".old-", dir=target.parent))
            try:
                target.rename(old)
            except FileNotFoundError:
                pass  # another process moved it away first
            shutil.rmtree(old, ignore_errors=True)
    raise PlaceUnsafe(f"{target} cannot be replaced", "remove it")
