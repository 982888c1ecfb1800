"""zephyr_cursor(): how far the log is, as a token that a read can wait for.

Called after COMMIT: what was committed before stands before it. The token is the other form of a
cursor (realtime/cursor.py reads it): system identifier, timeline and WAL position, with check digits.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The insert position: with synchronous_commit off a commit is not written yet when it returns. Layout as in
# realtime/cursor.py: version 2, system identifier (8 bytes), timeline (4), position (8), digest (4).
CURSOR = r"""
CREATE FUNCTION public.zephyr_cursor() RETURNS text LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog AS $$
DECLARE
    place pg_lsn;
    body bytea;
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'zephyr_cursor() stands before the commit of the transaction that it is called in'
            USING ERRCODE = 'invalid_transaction_state', HINT = 'Call it after COMMIT, by itself.';
    END IF;
    IF pg_is_in_recovery() THEN
        place := pg_last_wal_replay_lsn();
    ELSE
        place := pg_current_wal_insert_lsn();
    END IF;
    SELECT '\x02'::bytea || int8send(system_identifier)
        || int4send((SELECT timeline_id FROM pg_control_checkpoint()))
        || int8send((place - '0/0'::pg_lsn)::bigint)
        INTO body FROM pg_control_system();
    RETURN encode(body || substring(sha256(body) FROM 1 FOR 4), 'base64');
END
$$
"""


def upgrade() -> None:
    """Makes the function."""
    op.execute(CURSOR)
