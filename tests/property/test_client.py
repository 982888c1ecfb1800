"""The client against connections that break anywhere: each event once and in order, snapshots never mixed.

A history and a plan of connections are drawn; a scripted server, on real sockets, serves each
connection from where the client asks and breaks it off where the plan says. What was handed out must be the
history, whatever the loop did with it meanwhile.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from protos.events.v1 import stream_pb2 as pb
from realtime.client import (
    Client,
    CreditWindow,
    MemoryCursorStore,
    ReceivedEvent,
    SnapshotBegins,
    SnapshotEnds,
    earliest,
    snapshot,
)
from tests.fixtures.scripted_server import ScriptedCall, cursor_of, scripted

_LAST = 40


@dataclass(frozen=True)
class Plan:
    """How long each connection's frames are, and after how many it breaks; the one after the last is whole."""

    breaks: list[tuple[int, int]]
    matching: list[int]
    window: int
    leaves_every: int


plans = st.builds(
    Plan,
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6)), max_size=5),
    st.lists(st.integers(1, _LAST - 1), unique=True).map(sorted),
    st.integers(1, 10),
    st.integers(1, 20),
)


async def _serve(call: ScriptedCall, plan: Plan, at: int) -> None:
    size, frames = plan.breaks[at] if at < len(plan.breaks) else (7, 1000)
    after = call.open.start.after.cursor
    call.through = int(after[1:]) if after else 0
    if call.open.start.HasField("snapshot"):
        await call.ready(cursor_of(0))
        # Each snapshot is of a state of its own, that is named after its connection.
        for page in range(3):
            if frames == 0:
                return
            frames -= 1
            await call.page(f"{at}.{page}.a", f"{at}.{page}.b", corrections=page == 2)
        if frames == 0:
            return
        frames -= 1
        await call.say(0, cursor_of(0), snapshot_end=pb.SnapshotEnd(items=6))
    else:
        await call.ready()
    left = [sequence for sequence in [*plan.matching, _LAST] if sequence > call.through]
    while left and frames:
        frames -= 1
        await call.events(*left[:size])
        del left[:size]
        if frames:
            await call.say(call.through, cursor_of(call.through), progress=pb.Progress())
    if frames:
        await call.hold()


async def _run(plan: Plan, starts_with_state: bool) -> None:
    calls = 0

    async def script(call: ScriptedCall) -> None:
        nonlocal calls
        calls += 1
        await _serve(call, plan, calls - 1)

    got: list[int] = []
    state: list[str] = []
    ended = 0
    store = MemoryCursorStore()
    async with scripted(script) as server, Client(server.address) as client:
        while not got or got[-1] != _LAST:
            async with client.subscribe(
                start=snapshot() if starts_with_state else earliest(),
                signals=True,
                credit=CreditWindow(plan.window, 100_000),
                store=store,
                name="n",
                save_every_s=0,
            ) as subscription:
                taken = 0
                async for item in subscription:
                    if isinstance(item, SnapshotBegins):
                        state.clear()
                    elif isinstance(item, SnapshotEnds):
                        ended += 1
                    elif isinstance(item, ReceivedEvent):
                        if item.sequence:
                            got.append(item.sequence)
                        else:
                            state.append(item.event.subject)
                    taken += 1
                    in_state = starts_with_state and not ended
                    if got[-1:] == [_LAST] or (taken == plan.leaves_every and not in_state):
                        await subscription.save()
                        break
    assert got == [*plan.matching, _LAST]
    if starts_with_state:
        assert ended == 1
        owner = state[0].split(".")[0]
        assert state == [f"{owner}.{page}.{name}" for page in range(3) for name in "ab"]


@settings(max_examples=25)
@given(plans, st.booleans())
def test_each_event_comes_once_whatever_breaks(plan: Plan, starts_with_state: bool) -> None:
    asyncio.run(asyncio.wait_for(_run(plan, starts_with_state), 30))
