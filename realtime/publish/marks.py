"""What stands in the stream of a producer: its marks, the last of which is the truth.

The last mark is asked of the stream's leader. Those before it, which the last results need, come by
direct get: a replica that lags gives fewer, and then less is known of old results, never something wrong.
"""

from __future__ import annotations

import time

from google.protobuf.message import DecodeError

from protos.events.v1 import stream_format as fmt
from protos.events.v1.mark_pb2 import ProducerMark
from realtime.errors import SourceUnavailable
from realtime.jetstream import StreamReader
from realtime.publish.commands import Message
from realtime.publish.results import Reached, Results

_PAGE = 1024


async def read_reached(reader: StreamReader, epoch: str, producer: str) -> Reached:
    """How far a producer is, as the stream says now.

    Raises:
        SourceUnavailable: the broker does not answer, or the mark is none.
    """
    subject = fmt.producer_subject(producer)
    last = await reader.last(subject)
    if last is None:
        return Reached()
    try:
        mark = ProducerMark.FromString(last.payload)
    except DecodeError as exc:
        raise SourceUnavailable(
            f"the mark of the producer {producer!r} cannot be read", "see who else writes to zephyr._mark.>"
        ) from exc
    found = Reached(last.sequence, mark.session, mark.reached, mark.instance)
    if mark.epoch == epoch:
        # In another epoch's marks, places mean nothing.
        await _read_results(reader, subject, found, epoch, mark)
    return found


async def _read_results(
    reader: StreamReader, subject: str, found: Reached, epoch: str, last: ProducerMark
) -> None:
    after = (last.results_since or found.mark) - 1
    while after + 1 < found.mark:
        entries = await reader.page(epoch, after, messages=_PAGE, subject=subject)
        if not entries:
            break
        for entry in entries:
            if entry.sequence >= found.mark:
                break
            mark = ProducerMark.FromString(entry.payload)
            if mark.epoch == epoch:
                _add(found.results, mark, entry.sequence)
        after = entries[-1].sequence
    _add(found.results, last, found.mark)


def _add(results: Results, mark: ProducerMark, sequence: int) -> None:
    results.add(mark.sequences, sequence - len(mark.sequences))


def mark_message(
    producer: str,
    epoch: str,
    state: Reached,
    session: int,
    reached: int,
    sequences: list[int],
    instance: str,
) -> Message:
    """The mark that follows ``state``, stored only behind it."""
    mark = ProducerMark(
        epoch=epoch,
        session=session,
        reached=reached,
        sequences=sequences,
        results_since=state.results.since(len(sequences)),
        written_at=time.time_ns() // 1000,
        instance=instance,
    )
    head = f"{fmt.FENCE_SEQUENCE}: {state.mark}\r\n"
    return Message(fmt.producer_subject(producer), head, mark.SerializeToString())
