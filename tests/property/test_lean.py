"""The lean reader gives what nats-py's own parser gives, however the bytes are cut."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from realtime.lean import Sink
from realtime.tap import Tap

Message = tuple[int, bytes, bytes, bytes, bytes]
OURS = (2, 31)

sids = st.sampled_from((1, *OURS, 4, 311))
subjects = st.sampled_from((b"a", b"zephyr.0.w.note.n.row", b"_INBOX.x.y"))
replies = st.sampled_from((b"", b"$JS.ACK.s.c.1.2.3.4.5", b"r"))
payloads = st.one_of(st.binary(max_size=60), st.sampled_from((b"MSG a 2 3\r\nabc\r\n", b"\r\n", b"PING\r\n")))
headers = st.sampled_from(
    (b"NATS/1.0\r\n\r\n", b"NATS/1.0\r\nZephyr-Verb: made\r\n\r\n", b"NATS/1.0 100 x\r\n\r\n")
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    subject, sid, reply = draw(subjects), draw(sids), draw(replies)
    payload, space = draw(payloads), draw(st.sampled_from((b" ", b"  ", b"\t")))
    words = [subject, b"%d" % sid] + ([reply] if reply else [])
    if draw(st.booleans()):
        head = draw(headers)
        words = [b"HMSG", *words, b"%d" % len(head), b"%d" % (len(head) + len(payload))]
        return space.join(words) + b"\r\n" + head + payload + b"\r\n"
    return space.join([b"MSG", *words, b"%d" % len(payload)]) + b"\r\n" + payload + b"\r\n"


lines = st.sampled_from(
    (
        b"PING\r\n",
        b"PONG\r\n",
        b"+OK\r\n",
        b"-ERR 'Slow Consumer'\r\n",
        b'INFO {"server_id":"x","text":"' + b"y" * 5000 + b'"}\r\n',
    )
)
malformed = st.sampled_from(
    (
        b"",
        b"NONSENSE\r\n",
        b"MSG a 2\r\n",
        b"MSG a x 1\r\na\r\n",
        b"HMSG a 2 1 x\r\n",
        b"MSG a 2 -1\r\n",
        b"MSG a 2 3\r\nab",
        b"PIN",
        b"z" * 5000 + b"\r\nPING\r\n",
    )
)


class Recorder:
    """What a parser tells its connection."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.others: list[Any] = []

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, hdr: bytes | None
    ) -> None:
        self.messages.append((sid, bytes(subject), bytes(reply), hdr or b"", data))

    async def _process_err(self, text: str) -> None:
        self.others.append(text)

    async def _process_ping(self) -> None:
        self.others.append("ping")

    async def _process_pong(self) -> None:
        self.others.append("pong")

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.others.append(info["server_id"])


class Kept:
    """A sink whose messages are taken out after each read."""

    def __init__(self, sid: int, messages: list[Message]) -> None:
        self.sid = sid
        self.messages = messages
        self.sink = Sink(self.take)

    def take(self) -> None:
        taken = self.sink.take()
        assert taken, "something arrived"
        self.messages += [(self.sid, *each) for each in taken]


async def feed(parser: Parser, pieces: list[bytes]) -> bool:
    """Whether the parser refused something; nats-py closes the connection then."""
    try:
        for piece in pieces:
            await parser.parse(piece)
    except ProtocolError:
        return True
    return False


@given(
    st.lists(st.one_of(frames(), frames(), lines), max_size=12),
    malformed,
    st.lists(st.integers(0, 2000), max_size=12),
    st.sets(st.sampled_from(OURS)),
)
def test_it_reads_what_nats_py_reads(runs: list[bytes], end: bytes, cuts: list[int], ours: set[int]) -> None:
    data = b"".join(runs) + end
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:stop] for start, stop in itertools.pairwise(edges)]

    plain = Recorder()
    is_refused = asyncio.run(feed(Parser(plain), pieces))

    mixed = Recorder()
    tap = Tap(mixed)  # type: ignore[arg-type]
    kept: list[Message] = []
    sinks = [Kept(sid, kept) for sid in ours]
    for sink in sinks:
        tap.scanner.sinks[b"%d" % sink.sid] = sink.sink
    assert asyncio.run(feed(tap, pieces)) == is_refused

    for sid in ours:
        assert [each for each in kept if each[0] == sid] == [
            each for each in plain.messages if each[0] == sid
        ]
    assert mixed.messages == [each for each in plain.messages if each[0] not in ours]
    assert mixed.others == plain.others
    assert not any(sink.sink.messages for sink in sinks)


@given(st.lists(frames(), min_size=1, max_size=3), st.integers(1, 200))
def test_it_goes_on_where_another_parser_was_interrupted(runs: list[bytes], cut: int) -> None:
    data = b"".join(runs)
    plain = Recorder()
    asyncio.run(feed(Parser(plain), [data]))

    mixed = Recorder()
    former = Parser(mixed)
    asyncio.run(feed(former, [data[:cut]]))
    begun = len(mixed.messages)
    tap = Tap(mixed)  # type: ignore[arg-type]
    tap.take_over(former)
    kept: list[Message] = []
    tap.scanner.sinks[b"2"] = Kept(2, kept).sink
    asyncio.run(feed(tap, [data[cut:]]))
    assert sorted(mixed.messages + kept) == sorted(plain.messages)
    assert mixed.messages[:begun] == plain.messages[:begun]


def test_a_reset_forgets_what_was_cut_off() -> None:
    mixed = Recorder()
    tap = Tap(mixed)  # type: ignore[arg-type]
    kept: list[Message] = []
    tap.scanner.sinks[b"2"] = Kept(2, kept).sink
    asyncio.run(tap.parse(b"MSG a 2 3\r\nab"))
    tap.reset()
    asyncio.run(tap.parse(b"MSG a 2 1\r\nx\r\n"))
    assert kept == [(2, b"a", b"", b"", b"x")]


def test_nothing_is_read_on_after_a_reset_in_the_middle() -> None:
    class Lost(Recorder):
        async def _process_err(self, text: str) -> None:
            tap.reset()

    tap = Tap(Lost())  # type: ignore[arg-type]
    kept: list[Message] = []
    tap.scanner.sinks[b"2"] = Kept(2, kept).sink
    asyncio.run(tap.parse(b"-ERR 'Stale Connection'\r\nMSG a 2 1\r\nx\r\n"))
    assert kept == []
