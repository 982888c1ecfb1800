"""A child's log: quoted for the cause, bounded in size."""

from __future__ import annotations

from pathlib import Path

import pytest

from zephyr.stack.log import LogFile


def write(log: LogFile, text: str) -> None:
    with log.open() as stream:
        stream.write(text.encode())


def test_quotes_the_current_run_alone(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "folder" / "it.log")
    assert log.tail() == []
    assert log.cause() == ""
    write(log, "FATAL: of the first run\n")
    assert log.cause() == "FATAL: of the first run"
    write(log, "all is well\n\n")
    assert log.tail() == ["all is well"]
    assert log.cause() == "all is well"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("LOG: start\nFATAL:  no such thing\nLOG: database system is shut down\n", "FATAL:  no such thing"),
        ("[INF] start\n[1] [FTL] no such thing\n[INF] exit\n", "[1] [FTL] no such thing"),
        ("\x1b[1;31merror: \x1b[0mno such thing — mend it\n", "error: no such thing — mend it"),
        ("one\ntwo\n", "two"),
    ],
)
def test_finds_the_cause(tmp_path: Path, text: str, cause: str) -> None:
    log = LogFile(tmp_path / "it.log")
    write(log, text)
    assert log.cause() == cause


def test_stays_within_its_limit_and_keeps_the_end(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "it.log", limit_bytes=1000)
    with log.open() as stream:
        for number in range(1000):
            stream.write(f"line {number}\n".encode())
            log.trim()
            assert log.path.stat().st_size <= 1000
    assert log.tail(1) == ["line 999"]
    lines = log.path.read_text().splitlines()
    assert lines == [f"line {number}" for number in range(1000 - len(lines), 1000)]
