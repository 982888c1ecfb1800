"""Slot, mark and stream's end held against each other: what joins, and what is refused."""

from __future__ import annotations

import pytest

from bridge.change import Position
from bridge.continuity import check_no_slot, check_slot, repeated_lsn
from bridge.errors import EpochLost, HistoryGone
from bridge.postgres import SlotState
from protos.events.v1.mark_pb2 import PositionMark


def slot(confirmed_lsn: int) -> SlotState:
    return SlotState(confirmed_lsn, None)


def marked(wal_lsn: int) -> PositionMark:
    return PositionMark(wal_lsn=wal_lsn)


@pytest.mark.parametrize(
    ("found", "mark"), [(None, 0), (slot(0x50), 0), (slot(0x50), 0x50), (slot(0x50), 0x60)]
)
def test_what_joins(found: SlotState | None, mark: int) -> None:
    check_slot("zephyr", found, marked(mark))


def test_a_slot_that_is_gone() -> None:
    with pytest.raises(EpochLost, match="the slot 'zephyr' is gone: changes since 50"):
        check_slot("zephyr", None, marked(0x50))


def test_a_stream_that_lost_its_end() -> None:
    with pytest.raises(EpochLost, match="confirmed to 51, the last mark says 50"):
        check_slot("zephyr", slot(0x51), marked(0x50))


def test_a_stream_that_is_gone() -> None:
    check_no_slot("ZEPHYR", "zephyr", None)
    with pytest.raises(HistoryGone, match="there is no stream 'ZEPHYR', but a slot 'zephyr'"):
        check_no_slot("ZEPHYR", "zephyr", slot(0))


@pytest.mark.parametrize(
    ("found", "last", "lsn"),
    [
        (slot(0x40), 0x50, 0x50),
        (slot(0x50), 0x50, 0x50),
        (slot(0x51), 0x50, 0),
        (None, 0x50, 0),
        (slot(0x40), None, 0),
    ],
)
def test_what_the_slot_must_send_again(found: SlotState | None, last: int | None, lsn: int) -> None:
    assert repeated_lsn(found, Position(last, 0) if last is not None else None) == lsn
