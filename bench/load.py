"""The changes that are written: notes of about 250 bytes of text, 40 % inserted, 60 % updated.

They are written inside the server, by one procedure, so that many single-row transactions
are made quickly; the loading session does not wait for the disk at each commit. What is
measured afterwards reads the same WAL as if clients had written it.
"""

from __future__ import annotations

from bench.database import Session, session

WORKSPACE = "00000000-0000-4000-8000-000000000001"
ROW_BYTES = 250
UPDATES = 0.6

_WORKSPACE = "INSERT INTO public.workspaces (id, slug, name) VALUES (%s, 'bench', 'Bench')"

_FILL = """
INSERT INTO public.notes (id, workspace_id, title, body)
SELECT md5('note' || n)::uuid, %s, rpad('Note ' || n, 27, ' title'), rpad('Row ' || n, 88, ' of the body of a note')
FROM generate_series(1, %s) AS n
"""

# Of five changes the first and the third insert. Ids come from their number, so that an
# update finds an earlier note without a search. The columns beside title and body have
# about 135 bytes as text; 27 and 88 more make 250.
_PROCEDURE = """
CREATE PROCEDURE pg_temp.bench_load(changes bigint, per_transaction bigint, workspace uuid)
LANGUAGE plpgsql AS $$
DECLARE
    made bigint := 0;
BEGIN
    FOR n IN 1..changes LOOP
        IF n % 5 IN (1, 3) THEN
            INSERT INTO public.notes (id, workspace_id, title, body)
            VALUES (md5('note' || made)::uuid, workspace, rpad('Note ' || made, 27, ' title'),
                    rpad('Change ' || n, 88, ' of the body of a note'));
            made := made + 1;
        ELSE
            UPDATE public.notes SET body = rpad('Change ' || n, 88, ' of the body of a note')
            WHERE id = md5('note' || (n * 7919 % made))::uuid;
        END IF;
        IF n % per_transaction = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
    COMMIT;
END
$$
"""


async def make_workspace(dsn: str) -> int:
    """Makes the workspace that the notes are in; gives the WAL position after it."""
    async with session(dsn) as connection:
        await connection.execute(_WORKSPACE, (WORKSPACE,))
        return await wal_position(connection)


async def load_changes(dsn: str, rows: int, rows_per_transaction: int) -> int:
    """Writes ``rows`` changes; gives the WAL position after them, which is on disk."""
    async with session(dsn) as connection:
        await connection.execute("SET synchronous_commit = off")
        await connection.execute(_PROCEDURE)
        await connection.execute(
            "CALL pg_temp.bench_load(%s, %s, %s)", (rows, rows_per_transaction, WORKSPACE)
        )
        # Readers see flushed WAL only, and no checkpoint shall fall into a round.
        await connection.execute("CHECKPOINT")
        return await wal_position(connection)


async def fill_notes(dsn: str, rows: int) -> None:
    """Fills the table with ``rows`` notes in one workspace, on disk and vacuumed."""
    async with session(dsn) as connection:
        await connection.execute(_WORKSPACE, (WORKSPACE,))
        await connection.execute(_FILL, (WORKSPACE, rows))
        # Or the first who reads would write what the server knows of each row.
        await connection.execute("VACUUM (ANALYZE) public.notes")
        await connection.execute("CHECKPOINT")


async def drop_notes(dsn: str) -> None:
    """Empties the table: one event."""
    async with session(dsn) as connection:
        await connection.execute("TRUNCATE public.notes")


async def wal_position(connection: Session) -> int:
    """Where the WAL ends now."""
    cursor = await connection.execute("SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint")
    row = await cursor.fetchone()
    assert row is not None
    return int(str(row[0]))
