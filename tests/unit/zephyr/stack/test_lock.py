"""One stack a data folder, whatever ends its holder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zephyr.stack.errors import DataInUse
from zephyr.stack.lock import DataLock

HOLDER = """
import sys
from pathlib import Path
from zephyr.stack.lock import DataLock
with DataLock(Path(sys.argv[1])) as lock:
    lock.sign()
    print("held", flush=True)
    sys.stdin.read()
"""


def test_nobody_holds_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert DataLock.holder(tmp_path / "none") is None
    assert DataLock.signature(tmp_path / "none") == 0


def test_a_second_holder_is_refused(tmp_path: Path) -> None:
    with DataLock(tmp_path) as lock:
        assert DataLock.holder(tmp_path) == 0
        lock.sign()
        assert DataLock.holder(tmp_path) == os.getpid()
        with pytest.raises(DataInUse, match=f"process {os.getpid()}") as raised, DataLock(tmp_path):
            pass
        assert f"zephyr down --data {tmp_path}" in raised.value.mend
    assert DataLock.holder(tmp_path) is None


def test_a_lock_goes_with_its_holder_even_by_sigkill(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert DataLock.holder(tmp_path) == process.pid
        process.kill()
        process.wait()
        assert DataLock.signature(tmp_path) == process.pid
        assert DataLock.holder(tmp_path) is None
        with DataLock(tmp_path):
            pass
