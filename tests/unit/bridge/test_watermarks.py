"""Between two watermarks: what changed is left out, and a read that saw too little is made again."""

from __future__ import annotations

import pytest

from bridge.change import Begin, Column, LogicalMessage, Operation, Relation, RowChange, Truncate
from bridge.outgoing import Outgoing
from bridge.watermarks import PREFIX, Chunk, Window

NOTES = Relation(7, "public", "notes", "f", (Column("title", 25, -1, True), Column("id", 25, -1, True)))
USERS = Relation(8, "public", "users", "f", NOTES.columns)
MARK = Outgoing("mark", "", b"")


def outgoing(key: str) -> Outgoing:
    return Outgoing(key, "", b"")


def update(key: str, relation: Relation = NOTES, new: str | None = None) -> RowChange:
    return RowChange(Operation.UPDATE, relation, ("t", key), ("t", new or key))


def message(text: str, prefix: str = PREFIX) -> LogicalMessage:
    return LogicalMessage(prefix, text.encode(), 1, True)


class Kit:
    """A window with a chunk of the keys a, b and c."""

    def __init__(self) -> None:
        self.window = Window()
        self.window.expect("w", 7, "id")

    def commit(self, *changes: RowChange | Truncate, xid: int = 1) -> list[Outgoing]:
        for change in changes:
            self.window.change(change)
        return self.window.committed(Begin(1, 1, xid))

    def low(self, xid: int = 50) -> None:
        self.window.heard(message("w:low"))
        assert self.commit(xid=xid) == []

    def high(self) -> list[Outgoing]:
        self.window.heard(message("w:high"))
        return self.commit(xid=90)

    def close(self, snapshot: str = "60:60:") -> None:
        self.outcome = self.window.close_with(Chunk({key: outgoing(key) for key in "abc"}, snapshot, MARK))


async def test_what_changed_between_is_left_out() -> None:
    kit = Kit()
    kit.commit(update("a"))
    kit.low()
    kit.commit(update("b"), update("x", USERS))
    kit.close()
    kit.commit(update("z", new="c"))
    assert kit.high() == [outgoing("a"), MARK]
    kit.window.stored()
    assert await kit.outcome == 1
    assert kit.commit(update("a")) == []


@pytest.mark.parametrize("snapshot", ["40:60:41", "30:41:", "30:40:", "30:60:35,41,42"])
async def test_a_transaction_before_low_that_the_read_did_not_see(snapshot: str) -> None:
    kit = Kit()
    kit.commit(update("a"), xid=41)
    kit.low()
    kit.close(snapshot)
    assert kit.high() == []
    assert await kit.outcome == -1


async def test_ids_that_wrapped_around() -> None:
    kit = Kit()
    kit.commit(update("a"), xid=(1 << 32) - 2)
    kit.low(xid=3)
    kit.close(f"{(5 << 32) + 4}:{(5 << 32) + 9}:{(5 << 32) + 4}")
    assert kit.high() == [outgoing("a"), outgoing("b"), outgoing("c"), MARK]


async def test_a_truncation_between() -> None:
    kit = Kit()
    kit.low()
    kit.close()
    kit.commit(Truncate((USERS,)))
    kit.commit(Truncate((NOTES,)))
    assert kit.high() == []
    assert await kit.outcome == -1


async def test_watermarks_of_others_are_passed_over() -> None:
    kit = Kit()
    kit.window.heard(message("other:low"))
    kit.window.heard(message("w:low", "zephyr.heartbeat"))
    kit.window.heard(message("w:high"))
    kit.close()
    assert kit.commit() == []
    assert not kit.outcome.done()


async def test_one_that_is_given_up_says_so() -> None:
    kit = Kit()
    kit.low()
    kit.window.leave(MARK)
    assert kit.high() == [MARK]
    kit.window.stored()
    assert kit.commit() == []
