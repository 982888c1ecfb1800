"""Shows a run while it goes on: a live view on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from zephyr.demo.expected import Expected
from zephyr.demo.history import History
from zephyr.demo.replay import Progress
from zephyr.demo.result import Result
from zephyr.demo.subscribers import Subscribers

_FRAME_S = 0.25
_LINE_S = 5.0
_RATE_S = 3.0
"""Rates are those of so many seconds, or of the time since the line before."""
_VERBS = {"add": "green", "modify": "cyan", "rename": "yellow", "delete": "red"}


class View:
    """What a person sees of one run, on ``console``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = "replaying"

    def stage(self, words: str) -> None:
        """Says what is done from now on."""
        self._stage = words
        if not self._console.is_terminal:
            self._console.print(words)

    async def show(
        self, history: History, progress: Progress, expected: Expected, subscribers: Subscribers
    ) -> None:
        """Shows the run until it is cancelled."""
        frame = _Frame(history, progress, expected, subscribers)
        frame.measure()
        if not self._console.is_terminal:
            while True:
                await asyncio.sleep(_LINE_S)
                frame.measure()
                self._console.print(frame.line(), markup=False)
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                frame.measure()
                live.update(frame.picture(self._stage), refresh=True)
                await asyncio.sleep(_FRAME_S)

    def summary(self, history: History, result: Result) -> None:
        """What stands above the one line."""
        console = self._console
        skipped = ", ".join(f"{count} {reason}" for reason, count in result.skipped.most_common())
        console.print(
            f"{history.name}: {result.events / result.seconds if result.seconds else 0:,.0f} events/s"
            f" for {result.seconds:.1f} s, {result.subscribers} subscribers"
            f"{'; skipped ' + skipped if skipped else ''}",
            markup=False,
        )
        for proof, is_equal in (
            ("stream = SELECT * of the database", result.state_equal),
            ("cache = stream", result.cache_equal),
        ):
            console.print(
                Text.assemble(
                    ("✓ ", "green") if is_equal else ("✗ ", "red"), proof, "" if is_equal else ": no"
                )
            )
        for remark in result.remarks:
            console.print(remark, style="yellow", markup=False)


class _Frame:
    """The run as it stands at one moment."""

    def __init__(
        self, history: History, progress: Progress, expected: Expected, subscribers: Subscribers
    ) -> None:
        self._history = history
        self._progress = progress
        self._expected = expected
        self._subscribers = subscribers
        self._past: deque[tuple[float, int, int, int]] = deque()

    def measure(self) -> None:
        self._past.append(
            (
                time.monotonic(),
                self._progress.commits,
                len(self._expected),
                self._subscribers.deliveries,
            )
        )

        while len(self._past) > 2 and self._past[1][0] <= self._past[-1][0] - _RATE_S:
            self._past.popleft()

    def line(self) -> str:
        _, events, deliveries = self._rates()
        trouble = f" · waiting for Postgres: {self._progress.trouble}" if self._progress.trouble else ""
        return (
            f"{self._progress.commits:,} of {self._history.total:,} commits · {events:,.0f} events/s"
            f" · {deliveries:,.0f} deliveries/s · {self._lag()} · {self._latency()}{trouble}"
        )

    def picture(self, stage: str) -> RenderableType:
        commits, events, deliveries = self._rates()
        done, total = self._progress.commits, self._history.total
        left = f"{timedelta(seconds=round((total - done) / commits))}" if commits and done < total else "…"
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(self._history.name, style="bold"),
            ProgressBar(total=max(total, 1), completed=done, width=40),
            f"{done:,}/{total:,} commits",
            f"{left} left",
        )
        numbers = Table.grid(padding=(0, 3))
        numbers.add_row(
            f"{events:,.0f} events/s", f"{deliveries:,.0f} deliveries/s", self._lag(), self._latency()
        )
        recent = Table.grid(padding=(0, 2))
        recent.add_column(width=24, no_wrap=True, overflow="ellipsis")
        recent.add_column(width=7)
        recent.add_column(no_wrap=True, overflow="ellipsis")
        for author, verb, path in self._progress.recent:
            recent.add_row(_shown(author), Text(verb, style=_VERBS[verb]), _shown(path))
        trouble = f"waiting for Postgres: {self._progress.trouble}" if self._progress.trouble else stage
        return Group(
            head, numbers, recent, Text(trouble, style="yellow" if self._progress.trouble else "dim")
        )

    def _rates(self) -> tuple[float, float, float]:
        """Commits, events and deliveries a second."""
        if len(self._past) < 2:
            return 0.0, 0.0, 0.0
        first, last = self._past[0], self._past[-1]
        seconds = max(last[0] - first[0], 1e-6)
        return (last[1] - first[1]) / seconds, (last[2] - first[2]) / seconds, (last[3] - first[3]) / seconds

    def _lag(self) -> str:
        frontier = min((account.frontier for account in self._subscribers.accounts), default=0)
        events = len(self._expected) - frontier
        # The workspace's own transaction stands before the commits.
        commits = (
            max(0, self._progress.commits + 1 - self._expected.commits_before(frontier)) if events else 0
        )
        return f"lag {commits} commits, {events} events"

    def _latency(self) -> str:
        latencies = self._subscribers.latencies
        return f"p50 {latencies.percentile_ms(50):.1f} ms, p99 {latencies.percentile_ms(99):.1f} ms"


def _shown(words: str) -> Text:
    """One line of text without control characters, which a repository may hold."""
    return Text("".join(letter if letter.isprintable() else "�" for letter in words))
