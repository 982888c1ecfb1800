"""Whether slot and stream still join, so that no change between the two can be missing.

Decided from the slot, the stream's end and its last mark, with no I/O. What does not join is
refused, never bridged: only a new epoch, which copies the tables, makes the stream whole again.
"""

from __future__ import annotations

from bridge.change import Position
from bridge.errors import EpochLost, HistoryGone
from bridge.postgres import SlotState
from protos.events.v1.mark_pb2 import PositionMark


def check_no_slot(stream: str, name: str, slot: SlotState | None) -> None:
    """Whether a stream that is not there may be made.

    Raises:
        HistoryGone: the slot fed one.
    """
    if slot is not None:
        raise HistoryGone(
            f"there is no stream {stream!r}, but a slot {name!r} that fed one: what it held is gone",
            "restore the stream, name the right ones with ZEPHYR_STREAM and ZEPHYR_SLOT, or run:"
            " zephyr bridge new-epoch",
        )


def check_slot(name: str, slot: SlotState | None, mark: PositionMark) -> None:
    """Holds the slot against the last mark.

    Raises:
        EpochLost: changes between the two may be missing.
    """
    if mark.wal_lsn == 0:
        return
    if slot is None:
        raise EpochLost(
            f"the slot {name!r} is gone: changes since {mark.wal_lsn:X} may be missing",
            "run: zephyr bridge new-epoch",
        )
    if slot.confirmed_lsn > mark.wal_lsn:
        raise EpochLost(
            f"the stream lost its end: the slot {name!r} was confirmed to {slot.confirmed_lsn:X}, the last"
            f" mark says {mark.wal_lsn:X}",
            "run: zephyr bridge new-epoch; then raise ZEPHYR_BRIDGE_HOLD_BACK_S above the broker's sync_interval",
        )


def repeated_lsn(slot: SlotState | None, last: Position | None) -> int:
    """Commit LSN of the stream's last transaction if the slot must send it again; 0: it need not."""
    if slot is None or last is None or slot.confirmed_lsn > last.lsn:
        return 0
    return last.lsn
