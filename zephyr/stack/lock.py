"""One stack a data folder.

The kernel's lock on a file says so (flock), not the file's being there: it goes with the
process that holds it, whatever ends that. The file holds the process id, for ``zephyr down``
and for the error; it is only believed while the lock is held.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from zephyr.stack.errors import DataInUse, StackError

FILE_NAME = "lock"


class DataLock:
    """Held as a context manager; ``holder`` looks without taking it."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._handle: int | None = None

    def __enter__(self) -> DataLock:
        """Takes the lock.

        Raises:
            DataInUse: another process holds it.
            StackError: the folder is closed to this user.
        """
        handle = _open(self._data, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            pid = DataLock.holder(self._data)
            who = f"process {pid}" if pid else "another process"
            raise DataInUse(
                f"a stack already runs on {self._data} ({who})",
                f"end it with `zephyr down --data {self._data}`, or choose another folder with --data",
            ) from error
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return self

    def sign(self) -> None:
        """Writes who holds it; what is left of a former run must be cleared before."""
        assert self._handle is not None
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None

    @staticmethod
    def holder(data: Path) -> int | None:
        """The process that holds the folder; 0 when it has not signed yet, None when nobody does."""
        try:
            handle = _open(data, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            # Shared, so that two who look do not take each other for a holder.
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            return int(text) if text.isdigit() else 0
        finally:
            os.close(handle)
        return None

    @staticmethod
    def signature(data: Path) -> int:
        """The process that signed last, whether it lives or not; 0 when none did."""
        try:
            text = (data / FILE_NAME).read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return 0
        return int(text) if text.isdigit() else 0


def _open(data: Path, flags: int) -> int:
    try:
        return os.open(data / FILE_NAME, flags, 0o600)
    except PermissionError as error:
        raise StackError(
            f"the data folder {data} is closed to this user", "use the one it belongs to"
        ) from error
