"""What the stream says that exists, held against a snapshot of the tables.

The stream's last word on each subject is read without payloads, in pages, and each page's keys
are looked up in the snapshot: what is not there any more is said to be ``deleted``, what moved to
another workspace to have ``left``. Neither the stream's nor the tables' size matters to the memory.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import nats.errors
import nats.js.errors
import psycopg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from psycopg import AsyncConnection, sql

from bridge.chunks import rows_of
from bridge.errors import Unreachable
from bridge.fit import FittedMapping, FittedTable
from bridge.jetstream import JetStream
from bridge.outgoing import Outgoing
from bridge.states import StateEncoder
from protos.events.v1 import stream_format as fmt

_PAGE = 500
_CREATE_S = 120.0
"""The broker looks up the last message of each subject first, which takes it a while on a large stream."""
_ROWS = f"{fmt.ROOT}.{fmt.SHARD}.*.{{kind}}.*.row"

_STANDS = (*fmt.STATES, fmt.LEFT, fmt.REJECTED)


class Standing(NamedTuple):
    """What the stream says last under an entity's subject, where that is not its end."""

    sequence: int
    place: fmt.Subject
    verb: str


class Reconciler:
    """Compares a stream, up to ``through``, with what ``connection``'s snapshot sees."""

    def __init__(
        self,
        jetstream: JetStream,
        connection: AsyncConnection[Any],
        fitted: FittedMapping,
        states: StateEncoder,
        through: int,
    ) -> None:
        self._jetstream = jetstream
        self._connection = connection
        self._tables = list(fitted.tables.values())
        self._states = states
        self._through = through

    async def ends(self) -> AsyncGenerator[Outgoing, None]:
        """The messages that end what is gone.

        Raises:
            Unreachable: the broker went away.
            psycopg.Error: Postgres did.
        """
        for table in self._tables:
            async for page in self._standing(table.mapping.kind):
                found = await self._found(table, [each.place.entity for each in page])
                for sequence, place, verb in page:
                    workspace = found.get(place.entity)
                    # Who left has come in elsewhere, unless a kill came between: then only its end is missing.
                    if workspace == place.workspace or (verb == fmt.LEFT and workspace is not None):
                        continue
                    stored = await self._jetstream.get({"seq": sequence})
                    # None: a limit evicted it just now, and with it what it said.
                    if stored is not None:
                        yield self._states.gone(stored, fmt.DELETED if workspace is None else fmt.LEFT)

    async def _standing(self, kind: str) -> AsyncGenerator[list[Standing], None]:
        truncation = await self._jetstream.last(str(fmt.Subject(fmt.NONE, kind, fmt.NONE)))
        after = truncation.sequence if truncation is not None else 0
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
            ack_policy=AckPolicy.NONE,
            headers_only=True,
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=60,
        )
        context = self._jetstream.connection.jetstream(timeout=_CREATE_S)
        try:
            subscription = await context.pull_subscribe(
                _ROWS.format(kind=kind), stream=self._jetstream.stream, config=config
            )
            try:
                left = (await subscription.consumer_info()).num_pending or 0
                while left:
                    messages = await subscription.fetch(min(_PAGE, left), timeout=self._jetstream.timeout_s)
                    page = []
                    for message in messages:
                        metadata = message.metadata
                        left = metadata.num_pending
                        place = fmt.parse_subject(message.subject)
                        sequence = metadata.sequence.stream
                        if sequence > self._through:
                            left = 0
                        verb = (message.headers or {}).get(fmt.VERB, "")
                        if place is None or place.entity == fmt.NONE or verb not in _STANDS:
                            continue
                        if after < sequence <= self._through:
                            page.append(Standing(sequence, place, verb))
                    yield page
            finally:
                if self._jetstream.connection.is_connected:
                    await subscription.unsubscribe()
        except (nats.errors.Error, nats.js.errors.Error, OSError) as exc:
            raise Unreachable(f"NATS went away: {exc or type(exc).__name__}") from exc

    async def _found(self, table: FittedTable, keys: list[str]) -> dict[str, str]:
        """The workspace of each key that the snapshot has."""
        if not keys:
            return {}
        mapping = table.mapping
        key = sql.Identifier(mapping.key)
        workspace = (
            sql.Identifier(mapping.workspace) if mapping.workspace is not None else sql.Literal(fmt.NONE)
        )
        select = sql.SQL("SELECT {}::text, {}::text FROM {} WHERE ").format(
            key, workspace, await rows_of(self._connection, table)
        )
        typed = sql.SQL("{} = ANY (%s::text[]::{}[])").format(
            key,
            sql.SQL(table.columns[mapping.key].type_text.split("(", maxsplit=1)[0]),
        )
        try:
            async with self._connection.transaction():
                cursor = await self._connection.execute(select + typed, (keys,))
                return dict(await cursor.fetchall())
        except psycopg.DataError:
            # Keys of another type than the column's, from before it was changed: compared as texts.
            cursor = await self._connection.execute(
                select + sql.SQL("{}::text = ANY (%s)").format(key), (keys,)
            )
            return dict(await cursor.fetchall())
