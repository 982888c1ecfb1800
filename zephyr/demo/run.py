"""One run: the parts of the demo put together, and the order of opening and closing.

Subscribers first, and all of them ready; then the replay, never more than ``ahead`` commits before
the slowest of them; then, when all of them got everything, the proof, through which they go on
listening, so that what comes twice or uncalled for late is counted too. When nothing moves for
``stall_s`` seconds the run ends with what is missing counted as lost.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from dataclasses import dataclass
from uuid import uuid4

from zephyr.console import CommandError
from zephyr.demo.expected import Expected, total
from zephyr.demo.fold import Fold
from zephyr.demo.history import History
from zephyr.demo.plan import Plan
from zephyr.demo.proof import Comparison, prove_cache, prove_state
from zephyr.demo.replay import Replay
from zephyr.demo.result import Result
from zephyr.demo.stream import open_stream
from zephyr.demo.subscribers import Subscribers
from zephyr.demo.view import View

_READY_LIMIT_S = 30.0
_PROOF_LIMIT_S = 20.0
_HOPELESS_LIMIT_S = 2.0
"""How long the proof waits where events are missing already."""
_WATCH_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the system is: its gRPC server as host:port, the others as URLs."""

    grpc: str
    nats: str
    postgres: str
    redis: str
    stream: str = "ZEPHYR"


@dataclass(frozen=True, slots=True)
class Options:
    """``ahead`` is in commits, ``stall_s`` in seconds."""

    subscribers: int = 4
    ahead: int = 100
    stall_s: float = 60.0


async def run_demo(addresses: Addresses, history: History, options: Options, view: View) -> Result:
    """Replays the history while subscribers listen, and proves what came of it.

    Raises:
        CommandError: something cannot be reached or read, or refuses.
    """
    workspace_id = uuid4()
    expected = Expected()
    subscribers = Subscribers(addresses.grpc, workspace_id, options.subscribers, expected)
    replay = Replay(
        addresses.postgres,
        history,
        Plan(workspace_id, _slug(history.name), history.name),
        expected,
        may_write=lambda before: subscribers.wait_for_commits(before - options.ahead),
    )
    async with asyncio.TaskGroup() as group:
        background = [group.create_task(subscribers.run())]
        try:
            await _wait_ready(subscribers)
            background.append(group.create_task(view.show(history, replay.progress, expected, subscribers)))
            started = time.monotonic()
            is_stalled = await _replay(replay, subscribers, expected, options.stall_s, group)
            seconds = time.monotonic() - started
            result = Result(
                commits=replay.progress.commits,
                events=len(expected),
                subscribers=options.subscribers,
                counts=total(subscribers.accounts),
                p50_ms=subscribers.latencies.percentile_ms(50),
                p99_ms=subscribers.latencies.percentile_ms(99),
                seconds=seconds,
                skipped=history.skipped,
            )
            if is_stalled:
                trouble = f" (Postgres: {replay.progress.trouble})" if replay.progress.trouble else ""
                result.remarks.append(
                    f"nothing moved for {options.stall_s:.0f} s{trouble}: the run was ended"
                )
            view.stage("proving it: the stream, the tables and the cache")
            await _prove(addresses, result)
            # Once more: what came during the proof counts.
            result.counts = total(subscribers.accounts)
            result.remarks += [f"a subscriber stopped: {failure}" for failure in subscribers.failures]
        finally:
            for task in background:
                task.cancel()
    return result


async def _wait_ready(subscribers: Subscribers) -> None:
    try:
        async with asyncio.timeout(_READY_LIMIT_S):
            await subscribers.wait_ready()
    except TimeoutError as exc:
        raise CommandError(
            f"the subscribers were not ready within {_READY_LIMIT_S:.0f} s",
            "see that bridge and server run",
            3,
        ) from exc


async def _replay(
    replay: Replay, subscribers: Subscribers, expected: Expected, stall_s: float, group: asyncio.TaskGroup
) -> bool:
    """Writes everything and waits until it came; True when it stopped moving before that."""
    try:
        async with asyncio.timeout(stall_s) as limit:
            watch = group.create_task(_watch(limit, replay, subscribers, expected, stall_s))
            try:
                await replay.run()
                await subscribers.wait_complete()
            finally:
                watch.cancel()
    except TimeoutError:
        return True
    return False


async def _watch(
    limit: asyncio.Timeout, replay: Replay, subscribers: Subscribers, expected: Expected, stall_s: float
) -> None:
    """Puts the limit off as long as something moves."""
    clock = asyncio.get_running_loop().time
    before: tuple[int, ...] = ()
    while True:
        now = (replay.progress.commits, len(expected), subscribers.deliveries)
        if now != before and not limit.expired():
            limit.reschedule(clock() + stall_s)
            before = now
        await asyncio.sleep(_WATCH_EVERY_S)


async def _prove(addresses: Addresses, result: Result) -> None:
    """Fills in ``state_equal`` and ``cache_equal``; what cannot be read is not proven."""
    fold = Fold()
    limit_s = _HOPELESS_LIMIT_S if result.counts.lost else _PROOF_LIMIT_S
    try:
        async with open_stream(addresses.nats, addresses.stream) as reader:
            state = await prove_state(reader, fold, addresses.postgres, limit_s)
            result.state_equal = state.is_equal
            _remark(result, "state", state)
            cache = await prove_cache(fold, reader.epoch, addresses.redis, limit_s)
            result.cache_equal = cache.is_equal
            _remark(result, "cache", cache)
    except CommandError as exc:
        result.remarks.append(f"not proven: {exc.message}; {exc.mend}")


def _remark(result: Result, name: str, comparison: Comparison) -> None:
    if not comparison.is_equal:
        result.remarks.append(
            f"{name}: {comparison.count} differ, {comparison.compared} were compared, such as"
        )
        result.remarks += [f"  {words}" for words in comparison.shown]
    if comparison.unproven:
        result.remarks.append(
            f"the stream has lost its beginning to its limits: {comparison.unproven} rows that it no longer"
            f" tells of were not compared, {comparison.compared} were"
        )


def _slug(name: str) -> str:
    """A slug from the repository's name, new for each run."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48] or "repository"
    return f"{readable}-{secrets.token_hex(4)}"
