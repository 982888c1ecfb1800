"""What one transaction's messages must be, and the statements that make them.

Of the format only what its document says is spelled out here, a second time; nothing is taken from the code.
"""

from __future__ import annotations

import re

import psycopg

from tests.fixtures.format_kit import W1
from tests.fixtures.stream_reader import Stored

N1, N2 = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa", "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
BROKERS_OWN = re.compile(r"Nats-Expected-.*")
HEADERS = {"Zephyr-Id", "Zephyr-Verb", "Zephyr-Changed", "Zephyr-Commit", "Zephyr-Schema"}


def note(note_id: str = N1, workspace: str = W1, title: str = "Title", body: str = "Body") -> str:
    return f"INSERT INTO notes (id, workspace_id, title, body) VALUES ('{note_id}', '{workspace}', '{title}', '{body}')"


def shape(messages: list[Stored]) -> list[tuple[str, str]]:
    return [(message.subject, message.headers["Zephyr-Verb"]) for message in messages]


def subject(note_id: str = N1, workspace: str = W1) -> str:
    return f"zephyr.0.{workspace}.note.{note_id}.row"


def check_transaction(messages: list[Stored], epoch: str, dsn: str) -> None:
    """What every transaction's messages must be: headers and envelope say the same."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT system_identifier::text, current_database() FROM pg_control_system()"
        ).fetchone()
    assert row is not None
    system, database = row
    lsn = messages[0].headers["Zephyr-Commit"].split("/")[0]
    assert re.fullmatch(r"[1-9A-F][0-9A-F]*", lsn)
    for index, message in enumerate(messages):
        last = index == len(messages) - 1
        event, headers = message.event, message.headers
        assert headers["Zephyr-Commit"] == f"{lsn}/{index}" + (f"/{len(messages)}" if last else "")
        assert headers["Zephyr-Id"] == f"{system}.{epoch}.{lsn}.{index}" == event.id
        assert {name for name in headers if not BROKERS_OWN.fullmatch(name)} <= HEADERS
        assert headers.get("Zephyr-Changed", "") == ",".join(event.changed)
        assert ("Zephyr-Changed" in headers) == bool(event.changed)
        assert headers["Zephyr-Schema"] == event.data_schema
        assert (event.commit.lsn, event.commit.index) == (int(lsn, 16), index)
        assert event.commit.count == (len(messages) if last else 0)
        root, shard, workspace, kind, entity, suffix = message.subject.split(".")
        assert (root, shard, suffix) == ("zephyr", "0", "row")
        assert (event.workspace_id, event.subject) == (workspace, entity)
        assert event.type == f"{kind}.{headers['Zephyr-Verb']}"
        assert re.fullmatch(rf"/postgres/{system}/{database}/public\.{kind}s", event.source)
        name, slash, fingerprint = event.data_schema.partition("/")
        assert name == f"zephyr.models.v1.{kind.capitalize()}"
        assert re.fullmatch(r"[0-9a-f]{8,64}", fingerprint), (slash, fingerprint)
        has_data = event.WhichOneof("data")
        assert has_data == (None if headers["Zephyr-Verb"] == "truncated" else kind)
        assert abs(event.time - messages[0].event.time) == 0
