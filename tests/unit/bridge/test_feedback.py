"""The confirming between a ledger and a server that are values."""

from __future__ import annotations

import asyncio

import pytest

from bridge.errors import Unreachable
from bridge.feedback import Feedback
from bridge.ledger import Ledger


class Told:
    """A server that is told something; ``full`` is one that does not read its socket."""

    def __init__(self, full: bool = False) -> None:
        self.lsns: asyncio.Queue[int] = asyncio.Queue()
        self._full = full

    async def confirm(self, lsn: int, reply_requested: bool = False) -> None:
        if self._full:
            await asyncio.Event().wait()
        assert reply_requested
        self.lsns.put_nowait(lsn)


@pytest.mark.parametrize(
    ("interval_s", "timeout_s", "expected"), [(2, 60, 2), (2, 3, 1), (60, 0, 60), (0.1, 60, 0.1), (2, 6, 2)]
)
def test_three_times_in_what_the_server_waits(interval_s: float, timeout_s: float, expected: float) -> None:
    assert Feedback(Told(), Ledger(0), interval_s, timeout_s).interval_s == expected


async def test_it_gives_the_ledgers_word() -> None:
    ledger, told = Ledger(0), Told()
    feedback = Feedback(told, ledger, 0.001, 0)
    task = asyncio.ensure_future(feedback.run())
    try:
        assert await told.lsns.get() == 0
        ledger.stored(0x100, 0)
        while await told.lsns.get() != 0x100:
            pass
        await asyncio.wait_for(told.lsns.get(), 5)
        assert feedback.confirmed_lsn == 0x100
    finally:
        task.cancel()


async def test_a_socket_that_stays_full_ends_the_term() -> None:
    with pytest.raises(Unreachable, match=r"took no feedback for 0\.05 s"):
        await Feedback(Told(full=True), Ledger(0), 10, 0.05).run()
