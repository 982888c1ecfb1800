"""Transactions at a steady rate, whatever becomes of them: an open loop.

Each is due at its own time; one that is late goes at once and the next is not put off, so a
system that falls behind shows it. Every transaction inserts one note. They are written
inside the server over several connections, so that writing takes little from what is
measured, and commit as clients' do: each waits for the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bench.database import session
from bench.load import WORKSPACE

CONNECTIONS = 8
_START_AFTER_S = 0.5

# A note's id holds who wrote it and as which of its own: the last two parts of the uuid.
_PROCEDURE = """
CREATE PROCEDURE pg_temp.bench_pace(
    writer int, transactions int, start float8, gap float8, workspace uuid,
    INOUT sent float8[], INOUT returned float8[]
)
LANGUAGE plpgsql AS $$
DECLARE
    early float8;
BEGIN
    FOR n IN 0..transactions - 1 LOOP
        early := start + n * gap - extract(epoch FROM clock_timestamp());
        IF early > 0 THEN
            PERFORM pg_sleep(early);
        END IF;
        INSERT INTO public.notes (id, workspace_id, title, body)
        VALUES (('00000000-0000-4000-8' || lpad(writer::text, 3, '0') || '-' || lpad(n::text, 12, '0'))::uuid,
                workspace, rpad('Note ' || n, 27, ' title'), rpad('Change ' || n, 88, ' of the body of a note'));
        sent := array_append(sent, extract(epoch FROM clock_timestamp())::float8);
        COMMIT;
        returned := array_append(returned, extract(epoch FROM clock_timestamp())::float8);
    END LOOP;
END
$$
"""


@dataclass(frozen=True, slots=True)
class Written:
    """When each transaction's COMMIT was sent and had returned, by (writer, number), in seconds."""

    sent: dict[tuple[int, int], float]
    returned: dict[tuple[int, int], float]
    start: float

    @property
    def achieved_per_s(self) -> float:
        """The rate that was kept."""
        return len(self.returned) / (max(self.returned.values()) - self.start)


async def write_paced(dsn: str, per_second: int, seconds: float) -> Written:
    """Writes one-row transactions at ``per_second``, for ``seconds``."""
    writers = min(CONNECTIONS, per_second)
    each = max(1, round(per_second * seconds / writers))
    async with session(dsn) as clock:
        row = await (await clock.execute("SELECT extract(epoch FROM clock_timestamp())::float8")).fetchone()
        assert row is not None
    start = float(str(row[0])) + _START_AFTER_S
    gap = writers / per_second
    written = await asyncio.gather(
        *(_write(dsn, writer, each, start + writer / per_second, gap) for writer in range(writers))
    )
    sent = {(writer, n): at for writer, (first, _) in enumerate(written) for n, at in enumerate(first)}
    returned = {(writer, n): at for writer, (_, then) in enumerate(written) for n, at in enumerate(then)}
    return Written(sent, returned, start)


def writer_of(subject: str) -> tuple[int, int] | None:
    """Who wrote the note that an event's subject names, and as which; None for another event."""
    return writer_of_note(subject.split(".")[4]) if subject.split(".")[3] == "note" else None


def writer_of_note(note: str) -> tuple[int, int] | None:
    """The same of a note's id."""
    parts = note.split("-")
    return (int(parts[3][1:]), int(parts[4])) if len(parts) == 5 else None


async def _write(
    dsn: str, writer: int, transactions: int, start: float, gap: float
) -> tuple[Sequence[float], Sequence[float]]:
    async with session(dsn) as connection:
        await connection.execute(_PROCEDURE)
        cursor = await connection.execute(
            "CALL pg_temp.bench_pace(%s, %s, %s, %s, %s, '{}', '{}')",
            (writer, transactions, start, gap, WORKSPACE),
        )
        row = await cursor.fetchone()
        assert row is not None
        first, then = row
        assert isinstance(first, list)
        assert isinstance(then, list)
        return first, then
