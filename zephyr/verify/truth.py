"""What was committed, told by Postgres itself: the WAL, read through a slot of the oracle's own.

``Truth`` reads in steps while a run goes on, so that the server need not keep all of the WAL,
and keeps a small record of each message that must stand in the stream. A slot that fell back
in a crash tells commits again; those are known by their LSN and passed over.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import AsyncConnection

from zephyr.verify.wal import Change, Emitted, Row, Transaction, Wal

SLOT = PUBLICATION = "zephyr_truth"
TABLES = {"workspaces": "workspace", "users": "user", "memberships": "membership", "notes": "note"}
_STEP = 50_000
"""Rows asked for at once; the server ends at the transaction's end. Each call decodes the WAL anew from
where the slot may restart, so many small ones would take the square of the time."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A message as it must stand in the stream; ``count`` is 0 but on its transaction's last."""

    lsn: int
    index: int
    count: int
    subject: str
    verb: str
    version: int
    digest: int
    actor: str = ""

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands."""
        return self.lsn, self.index


class Truth:
    """Every message that the stream must hold, in order."""

    def __init__(self) -> None:
        self.expected: list[Expected] = []
        self.commits = 0
        self._last_lsn = 0

    async def open(self, connection: AsyncConnection) -> None:
        """Makes publication and slot; what is committed before is not of this history."""
        tables = ", ".join(f"public.{name}" for name in TABLES)
        await connection.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE {tables}".encode())
        await connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (SLOT,))

    async def read(self, connection: AsyncConnection) -> None:
        """Takes all that is committed by now, and nothing that is committed meanwhile."""
        cursor = await connection.execute("SELECT pg_current_wal_flush_lsn()::text")
        (target,) = await cursor.fetchone() or ("0/0",)
        while True:
            cursor = await connection.execute(
                "SELECT data FROM pg_logical_slot_get_binary_changes(%s, %s, %s,"
                " 'proto_version', '1', 'publication_names', %s, 'messages', 'true')",
                (SLOT, target, _STEP, PUBLICATION),
                binary=True,
            )
            rows = await cursor.fetchall()
            # Each call decodes anew, and tells the relations again.
            wal = Wal()
            for (message,) in rows:
                transaction = wal.take(bytes(message))
                if transaction is not None:
                    self.add(transaction)
            if len(rows) < _STEP:
                return

    def add(self, transaction: Transaction) -> None:
        """Takes the next transaction; one that was told before adds nothing."""
        if transaction.commit_lsn <= self._last_lsn:
            return
        self._last_lsn = transaction.commit_lsn
        messages: list[tuple[str, str, Row | None, str]] = []
        actor = ""
        for change in transaction.changes:
            if isinstance(change, Change):
                messages += [(*message, actor) for message in _messages(change)]
            elif change.prefix == "zephyr.context":
                actor = str(json.loads(change.content).get("actor", ""))
            else:
                messages.append((*_emitted(change), actor))
        self.commits += bool(messages)
        for index, (subject, verb, row, by) in enumerate(messages):
            count = len(messages) if index + 1 == len(messages) else 0
            version = int((row or {}).get("version") or 0)
            self.expected.append(
                Expected(transaction.commit_lsn, index, count, subject, verb, version, digest_of_row(row), by)
            )


def _emitted(message: Emitted) -> tuple[str, str, Row | None]:
    """Subject, verb and data of a domain event, which the writer emits as JSON; what is none is rejected."""
    try:
        said = json.loads(message.content)
    except ValueError:
        return "zephyr.0._._._.event", "rejected", None
    subject = f"zephyr.0.{said['workspaceId']}.{said['kind']}.{said['entityId']}.event"
    return subject, said["verb"], said.get(said["kind"], {})


def _messages(change: Change) -> Iterator[tuple[str, str, Row | None]]:
    """Subject, verb and row of what one change makes; see docs/stream-format.md."""
    kind, old, new = TABLES[change.table], change.old, change.new
    if new is not None and json.loads(new["metadata"] or "{}").__class__ is not dict:
        # Where it came from can be said, and what it is now cannot.
        if old is not None and _subject(kind, old) != _subject(kind, new):
            yield _subject(kind, old), "left" if old["id"] == new["id"] else "deleted", old
        yield _subject(kind, new), "rejected", None
    elif old is None and new is None:
        yield f"zephyr.0._.{kind}._.row", "truncated", None
    elif old is None:
        assert new is not None
        yield _subject(kind, new), "created", new
    elif new is None:
        yield _subject(kind, old), "deleted", old
    elif old["id"] != new["id"]:
        yield _subject(kind, old), "deleted", old
        yield _subject(kind, new), "created", new
    elif _subject(kind, old) != _subject(kind, new):
        yield _subject(kind, old), "left", old
        yield _subject(kind, new), "entered", new
    else:
        yield _subject(kind, new), "updated", new


def _subject(kind: str, row: Row) -> str:
    workspace = {"user": "_", "workspace": row["id"]}.get(kind) or row["workspace_id"]
    return f"zephyr.0.{workspace}.{kind}.{row['id']}.row"


def digest_of_row(row: Row | None) -> int:
    """Of the texts that a row carries besides its key: another state has another digest."""
    return digest(*((row.get(name) or "") for name in DIGESTED)) if row is not None else 0


DIGESTED = ("title", "body", "email", "display_name", "slug", "name", "role")


def digest(*texts: str) -> int:
    return zlib.crc32("\0".join(texts).encode())
