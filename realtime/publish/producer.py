"""A producer of events: its session, what it reached, and its marks, each stored only behind the one before.

That one rule is fence, checkpoint and guard against repetitions: of two sessions, of two servers, and of two
copies of a batch, one alone can follow the last mark.
"""

from __future__ import annotations

import asyncio

from realtime.errors import ProducerFenced, Unavailable
from realtime.jetstream import StreamReader
from realtime.publish.arrivals import Arrivals
from realtime.publish.broker import WRONG_LAST, Broker, NoAnswer, Refused
from realtime.publish.commands import Message
from realtime.publish.item import Flow
from realtime.publish.marks import mark_message, read_reached
from realtime.publish.results import Reached

_TRIES = 10


class Producer:
    """Of one server; others may serve it too, and the stream decides. An empty ``id`` stands for none.

    ``lock`` is held while a batch or a session's beginning is under way.
    """

    def __init__(self, producer_id: str, broker: Broker, reader: StreamReader, arrivals: Arrivals) -> None:
        self.id = producer_id
        self.reader = reader
        self.lock = asyncio.Lock()
        self.state = Reached()
        self._broker = broker
        self._arrivals = arrivals
        self._epoch_read = ""
        self.flows: set[Flow] = set()
        """Of the streams that have its session."""

    @property
    def epoch(self) -> str:
        """The stream's, as this server reads it."""
        return self._arrivals.epoch

    @property
    def is_read(self) -> bool:
        """Whether ``state`` is of this epoch's stream."""
        return not self.id or self._epoch_read == self.epoch

    async def read(self) -> None:
        """Takes over what the stream says.

        Raises:
            SourceUnavailable: the broker does not answer.
        """
        epoch = self.epoch
        found = await read_reached(self.reader, epoch, self.id)
        if not found.mark:
            # Retention took its marks, or there were none: what is known here goes on, but for places.
            found.session, found.reached = self.state.session, self.state.reached
            found.instance = self.state.instance
        self.state = found
        self._epoch_read = epoch
        self._tell_former()

    def _tell_former(self) -> None:
        for flow in list(self.flows):
            if flow.session != self.state.session:
                flow.fail(ProducerFenced(self.id, flow.session))

    async def begin_session(self, flow: Flow, instance: str = "", *, resumes: bool = False) -> int:
        """Begins a session, of ``flow``; the one before can store nothing from now on. Gives its number.

        One that ``resumes`` begins only if the last session was of its instance too.

        Raises:
            ProducerFenced: it was of another.
            SourceUnavailable: the broker does not answer.
            Unavailable: others begin sessions, again and again.
        """
        async with self.lock:
            for _ in range(_TRIES):
                await self.read()
                state = self.state
                if resumes and state.session and state.instance != instance:
                    raise ProducerFenced(self.id, state.session)
                session = state.session + 1
                mark = mark_message(self.id, self.epoch, state, session, state.reached, [], instance)
                try:
                    ack = await self._broker.publish(mark)
                except NoAnswer:
                    continue  # if it is stored, the next number is another session
                except Refused as exc:
                    if exc.error_code == WRONG_LAST:
                        continue
                    raise Unavailable(exc.message, exc.mend) from exc
                state.session, state.instance = session, instance
                state.mark = ack.sequence
                flow.session = session
                self._tell_former()
                self.flows.add(flow)
                return session
            raise Unavailable("other sessions of the producer begin, again and again", "try again")

    def mark(self, sequences: list[int]) -> Message:
        """The mark behind a batch of events with these sequences."""
        state = self.state
        return mark_message(
            self.id,
            self.epoch,
            state,
            max(1, state.session),
            max(sequences[-1], state.reached),
            sequences,
            state.instance,
        )

    def stored(self, sequences: list[int], mark: int) -> None:
        """A batch is stored, its mark at ``mark``."""
        state = self.state
        state.session = max(1, state.session)
        state.reached = max(state.reached, sequences[-1])
        state.mark = mark
        state.results.add(sequences, mark - len(sequences))
