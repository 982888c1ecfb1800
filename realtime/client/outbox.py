"""Domain events and their context in an application's own transaction.

An event that is emitted beside the rows it is about is committed with them or not at all: there is no
outbox table and no second write. It is a logical message in the WAL (docs/stream-format.md), which the bridge
makes an event at its place in the commit. What the bridge would reject is refused here, where it can
still be mended; whether the kind is mapped, the bridge alone knows.

Takes connections and cursors of psycopg, connections and sessions of SQLAlchemy; the asynchronous ones with
``emit_async`` and ``set_context_async``.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any, Final, Protocol

from protos.events.v1 import stream_format as fmt
from protos.events.v1.context_pb2 import TransactionContext
from protos.events.v1.publish_pb2 import NewEvent
from realtime.errors import ArgumentInvalid

_MAX_TEXT_BYTES: Final = 1024
_MAX_TOKEN: Final = 256
_EMIT: Final = "SELECT pg_logical_emit_message(true, %s, %s::bytea)"
_EMIT_NAMED: Final = "SELECT pg_logical_emit_message(true, :prefix, CAST(:content AS bytea))"
_MEND: Final = "give a connection or a cursor of psycopg, or a connection or a session of SQLAlchemy"


class Executes(Protocol):
    """A connection, a cursor or a session whose ``execute`` runs a statement and returns."""

    def execute(self, statement: Any, parameters: Any = ..., /) -> object: ...


class ExecutesAsync(Protocol):
    """The same, whose ``execute`` is awaited."""

    def execute(self, statement: Any, parameters: Any = ..., /) -> Awaitable[object]: ...


def emit(connection: Executes, event: NewEvent) -> None:
    """Emits an event in the connection's transaction, to be committed with it.

    Raises:
        ArgumentInvalid: the event cannot be one, or this is nothing that a statement is executed with.
    """
    _execute(connection, fmt.EVENT_PREFIX, _checked(event).SerializeToString())


async def emit_async(connection: ExecutesAsync, event: NewEvent) -> None:
    """``emit`` on an asynchronous connection, cursor or session.

    Raises:
        ArgumentInvalid: as ``emit``.
    """
    await _execute_async(connection, fmt.EVENT_PREFIX, _checked(event).SerializeToString())


def set_context(
    connection: Executes, *, actor: str = "", correlation_id: str = "", traceparent: str = ""
) -> None:
    """Says who and what is behind the connection's transaction: its events that follow carry it. A later
    call takes the place of this one as a whole; the next transaction begins with none.

    Raises:
        ArgumentInvalid: a text has more than 1024 bytes, or there is no transaction that would carry it.
    """
    _execute(connection, fmt.CONTEXT_PREFIX, _context(connection, actor, correlation_id, traceparent))


async def set_context_async(
    connection: ExecutesAsync, *, actor: str = "", correlation_id: str = "", traceparent: str = ""
) -> None:
    """``set_context`` on an asynchronous connection, cursor or session.

    Raises:
        ArgumentInvalid: as ``set_context``.
    """
    content = _context(connection, actor, correlation_id, traceparent)
    await _execute_async(connection, fmt.CONTEXT_PREFIX, content)


def _execute(connection: Executes, prefix: str, content: bytes) -> None:
    execute = getattr(connection, "execute", None)
    if execute is None or inspect.iscoroutinefunction(execute):
        raise ArgumentInvalid(
            "connection",
            f"a {type(connection).__name__} executes nothing at once",
            f"{_MEND}, or call the function that ends with _async",
        )
    execute(*_statement(connection, prefix, content))


async def _execute_async(connection: ExecutesAsync, prefix: str, content: bytes) -> None:
    execute = getattr(connection, "execute", None)
    if execute is None or not inspect.iscoroutinefunction(execute):
        raise ArgumentInvalid(
            "connection",
            f"a {type(connection).__name__} is not asynchronous",
            f"{_MEND}; of a synchronous one call the function without _async",
        )
    await execute(*_statement(connection, prefix, content))


def _statement(connection: object, prefix: str, content: bytes) -> tuple[Any, Any]:
    if _is_sqlalchemys(connection):
        from sqlalchemy import text  # who has such a connection has it loaded already

        return text(_EMIT_NAMED), {"prefix": prefix, "content": content}
    return _EMIT, (prefix, content)


def _is_sqlalchemys(connection: object) -> bool:
    # A session's class may be the application's own; its base is SQLAlchemy's.
    return any(base.__module__.partition(".")[0] == "sqlalchemy" for base in type(connection).__mro__)


def _context(connection: object, actor: str, correlation_id: str, traceparent: str) -> bytes:
    for name, value in (("actor", actor), ("correlation_id", correlation_id), ("traceparent", traceparent)):
        _check_text(name, value)
    if not _is_sqlalchemys(connection) and _commits_each_statement(connection):
        raise ArgumentInvalid(
            "connection",
            "it commits each statement by itself, and nothing would follow the context",
            "begin a transaction first: with connection.transaction()",
        )
    return TransactionContext(
        actor=actor, correlation_id=correlation_id, traceparent=traceparent
    ).SerializeToString()


def _commits_each_statement(connection: object) -> bool:
    """Whether a connection of psycopg, or a cursor's, is in no transaction and begins none by itself."""
    own = getattr(connection, "connection", connection)
    status = getattr(getattr(own, "info", None), "transaction_status", None)
    return getattr(own, "autocommit", False) is True and getattr(status, "name", "") == "IDLE"


def _checked(event: NewEvent) -> NewEvent:
    if not fmt.is_verb(event.verb) or event.verb in fmt.ROW_VERBS:
        raise ArgumentInvalid(
            "event.verb",
            f"{event.verb[:80]!r} is no verb of a domain event",
            f"a lower-case letter, then letters, digits, - and _; not of rows: {', '.join(fmt.ROW_VERBS)}",
        )
    for name, token in (
        ("workspace_id", event.workspace_id),
        ("kind", event.kind),
        ("entity_id", event.entity_id),
    ):
        is_none = token == fmt.NONE and name != "workspace_id"
        if not fmt.is_token(token) or len(token) > _MAX_TOKEN or is_none:
            raise ArgumentInvalid(
                f"event.{name}",
                f"{token[:80]!r} cannot stand in a subject: up to {_MAX_TOKEN} letters, digits, - and _ can",
                'a workspace_id of "_" is none' if name == "workspace_id" else "",
            )
    _check_text("event.actor", event.actor)
    _check_text("event.metadata.correlation_id", event.metadata.correlation_id)
    _check_text("event.metadata.traceparent", event.metadata.traceparent)
    return event


def _check_text(name: str, value: str) -> None:
    if len(value.encode("utf-8", "surrogatepass")) > _MAX_TEXT_BYTES:
        raise ArgumentInvalid(name, f"it has more than {_MAX_TEXT_BYTES} bytes")
