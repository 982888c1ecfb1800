"""``zephyr publish``: events from lines of JSON into the stream, each stored once."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from realtime.client import Client, Publication, Publisher
from realtime.client.published import Published
from realtime.errors import NotPublished, OutcomeUnknown, PublishFailed, RealtimeError
from zephyr.commands.tail import cursor_text
from zephyr.console import EXIT_INTERRUPTED, CommandError, console, flush_output, run, write_line
from zephyr.event_lines import BadLine, Line, event_of, has_sequence, lines_of
from zephyr.files import write_json
from zephyr.publish_bar import PublishBar
from zephyr.signals import on_stop

_SHOWN_BAD = 20
_KEPT_BAD = 1000
_SHOW_EVERY_S = 0.2


def publish(
    file: Annotated[
        str, typer.Argument(help="JSON lines; - reads standard input.", metavar="[FILE|-]")
    ] = "-",
    target: Annotated[
        str, typer.Option(help="HOST:PORT of the server.", envvar="ZEPHYR_TARGET")
    ] = "127.0.0.1:7400",
    producer: Annotated[
        str | None,
        typer.Option(
            help="A name for these lines: another run goes on behind what is stored of them.",
            show_default=False,
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Go on behind a line that is refused; end with 1 even so.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the lines; ask no server.")] = False,
    patience_s: Annotated[
        float, typer.Option("--patience-s", min=0, help="How long to try to reach a server that is away.")
    ] = 60,
    json: Annotated[
        Path | None,
        typer.Option("--json", help="Write a summary here.", metavar="FILE", show_default=False),
    ] = None,
) -> None:
    """Publish events, one a line, in their order. The last line on exit is the cursor behind the last one.

    A line is protobuf's JSON form of NewEvent, such as
    {"workspaceId": "28c48e46-…", "kind": "note", "entityId": "42", "verb": "shared"}.
    Its place is its number, or its "sequence". With --producer it may be run again after whatever
    broke it off: each line is stored once. It ends at the first line that is refused, with 1.
    """
    if json is not None and not json.absolute().parent.is_dir():
        raise CommandError(f"there is no folder {json.absolute().parent} for --json", "make it first", 2)
    with _opened(file) as descriptor:
        work = _Publishing(Summary(producer), skip_bad, PublishBar(console, _size(descriptor)))
        try:
            run(work.check(descriptor) if dry_run else work.run(descriptor, target, patience_s))
        finally:
            work.tell(json)
    if work.is_stopped:
        raise typer.Exit(EXIT_INTERRUPTED)
    if work.summary.bad_lines:
        raise typer.Exit(1)


@dataclass(slots=True)
class Summary:
    """What became of the lines. ``passed``: an earlier run stored them; ``bad`` has the first ones that are
    refused. ``unknown`` may be stored or not, since the publisher ended before."""

    producer: str | None
    stored: int = 0
    repeated: int = 0
    passed: int = 0
    checked: int = 0
    unknown: int = 0
    bad_lines: int = 0
    bad: list[dict[str, object]] = field(default_factory=list)
    reached: int = 0
    cursor: str = ""
    seconds: float = 0.0


class _Publishing:
    """The lines of one file, to one publisher."""

    def __init__(self, summary: Summary, skips_bad: bool, bar: PublishBar) -> None:
        self.summary = summary
        self.is_stopped = False
        self._skips_bad = skips_bad
        self._bar = bar
        self._under_way: deque[tuple[int, Publication]] = deque()
        self._more = asyncio.Event()
        self._is_refused = False
        self._began_at = time.monotonic()
        self._shown_at = 0.0
        self._last: Published | None = None

    async def check(self, file: int) -> None:
        """Only reads the lines."""
        async for line in lines_of(file):
            try:
                event_of(line)
            except BadLine as exc:
                self._bad(exc)
            self.summary.checked += 1
            self._show(line)

    async def run(self, file: int, target: str, patience_s: float) -> None:
        """Publishes the lines; at Ctrl-C those that are read.

        Raises:
            RealtimeError: the server is away, or ends the session.
        """
        with self._bar:
            async with (
                Client(target) as client,
                client.publisher(self.summary.producer, patience_s=patience_s) as publisher,
            ):
                self.summary.producer = publisher.producer_id
                reading = asyncio.create_task(self._read(file, publisher))
                following = asyncio.create_task(self._follow(reading))
                on_stop(lambda: self._stop(reading))
                try:
                    await reading
                except asyncio.CancelledError:
                    if not self.is_stopped and not self._is_refused:
                        raise
                finally:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
                    try:
                        with suppress(PublishFailed):  # the lines say it, one by one
                            await publisher.flush()
                    finally:
                        self.summary.reached = publisher.reached
                        self._settle()

    def _stop(self, reading: asyncio.Task[None]) -> None:
        self.is_stopped = True
        reading.cancel()

    async def _follow(self, reading: asyncio.Task[None]) -> None:
        """Takes results as they come, also while no line does; ends the reading at the first refusal."""
        while True:
            while not self._under_way:
                self._more.clear()
                await self._more.wait()
            with suppress(RealtimeError):  # it is told below
                await self._under_way[0][1]
            self._settle()
            if self.summary.bad_lines and not self._skips_bad:
                self._is_refused = True
                reading.cancel()
                return

    async def _read(self, file: int, publisher: Publisher) -> None:
        begins_after = publisher.reached
        async for line in lines_of(file):
            if line.number <= begins_after and not has_sequence(line):
                self.summary.passed += 1
                continue
            try:
                event, sequence = event_of(line)
                if sequence <= begins_after:
                    self.summary.passed += 1
                    continue
                self._under_way.append((line.number, await publisher.publish(event, sequence=sequence)))
                self._more.set()
            except BadLine as exc:
                self._bad(exc)
            except RealtimeError as exc:
                if exc.exit_code != 2:  # not an argument of ours: the publisher is over
                    raise
                self._bad(BadLine(line.number, _text(exc)))
            self._show(line)
            if self.summary.bad_lines and not self._skips_bad:
                return

    def _settle(self) -> None:
        """Takes the results that are there, in the lines' order."""
        while self._under_way and self._under_way[0][1].done:
            number, publication = self._under_way.popleft()
            error = publication.error
            if isinstance(error, NotPublished | OutcomeUnknown):
                self.summary.unknown += 1
                continue
            if error is not None:
                self._bad(BadLine(number, _text(error)))
                continue
            result = publication.result()
            self.summary.stored += not result.repeated
            self.summary.repeated += result.repeated
            if result.cursor:
                self._last = result

    def _bad(self, bad: BadLine) -> None:
        self.summary.bad_lines += 1
        if self.summary.bad_lines <= _SHOWN_BAD:
            console.print(f"line {bad.number}: {bad.message}", markup=False)
        if len(self.summary.bad) < _KEPT_BAD:
            self.summary.bad.append({"line": bad.number, "message": bad.message})

    def _show(self, line: Line) -> None:
        now = time.monotonic()
        if now - self._shown_at > _SHOW_EVERY_S:
            self._shown_at = now
            stored = self.summary.stored + self.summary.repeated
            self._bar.show(line.end, stored, stored / max(now - self._began_at, 1e-6))

    def tell(self, json: Path | None) -> None:
        """Says what became of the lines."""
        summary = self.summary
        summary.seconds = round(time.monotonic() - self._began_at, 3)
        if self._last is not None:
            summary.cursor = cursor_text(self._last.cursor)
            write_line(summary.cursor)
            flush_output()
        said = [f"{summary.checked:,} lines checked"] if summary.checked else [f"{summary.stored:,} stored"]
        if summary.passed or summary.repeated:
            said.append(f"{summary.passed + summary.repeated:,} were stored before")
        if summary.bad_lines:
            said.append(f"{summary.bad_lines:,} refused")
        if summary.unknown:
            said.append(f"{summary.unknown:,} may be stored or not")
        console.print(", ".join(said))
        if json is not None:
            write_json(json, asdict(summary))


def _text(error: RealtimeError) -> str:
    return f"{error.message} — {error.mend}" if error.mend else error.message


@contextmanager
def _opened(file: str) -> Iterator[int]:
    if file == "-":
        yield 0
        return
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError as exc:
        raise CommandError(
            f"{file} cannot be read: {exc.strerror}", "name a file of JSON lines, or -", 2
        ) from exc
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _size(file: int) -> int | None:
    """Bytes of a file; None of a pipe."""
    found = os.fstat(file)
    return found.st_size or None
