"""CloudEvents 1.0 in the headers of NATS messages: names, and how values are written and read. No I/O.

Source: CloudEvents, NATS Protocol Binding 1.0.3, section 3.1 (binary content mode); RFC 3339 for times.
What each attribute is here: docs/interop.md; why the data are the envelope: docs/decisions/028-the-envelope-is-the-data.md.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event

PREFIX: Final = "ce-"
SPEC_VERSION: Final = "1.0"
PROTOBUF: Final = "application/protobuf"
JSON: Final = "application/json"
TYPE_URL: Final = "https://type.googleapis.com/"
"""Before a message's full name, as in ``google.protobuf.Any``, for which this scheme is the default."""
ENVELOPE: Final = f"{TYPE_URL}zephyr.events.v1.Event"

ID: Final = "ce-id"
SOURCE: Final = "ce-source"
TYPE: Final = "ce-type"
SPECVERSION: Final = "ce-specversion"
SUBJECT: Final = "ce-subject"
TIME: Final = "ce-time"
DATACONTENTTYPE: Final = "ce-datacontenttype"
DATASCHEMA: Final = "ce-dataschema"
WORKSPACE: Final = "ce-workspaceid"
ACTOR: Final = "ce-actor"
CORRELATION: Final = "ce-correlationid"
TRACEPARENT: Final = "ce-traceparent"
CHANGED: Final = "ce-changed"
COMMIT: Final = "ce-commit"

_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_IS_PLAIN: Final = re.compile(r"[!#$&-~]+\Z")
_ESCAPED: Final = re.compile(r"\\(.)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def encode(text: str) -> str:
    """An attribute's value as a header: spaces, double quotes, percent signs and all beyond ASCII by percent."""
    return text if _IS_PLAIN.match(text) else quote(text, safe=_SAFE)


def decode(value: str) -> str:
    """An attribute's value from a header.

    Raises:
        ValueError: what is percent-encoded is no UTF-8.
    """
    text = value.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = _ESCAPED.sub(r"\1", text[1:-1])
    return unquote_to_bytes(text).decode("utf-8")


def format_time(at_us: int) -> str:
    """Unix time in microseconds, as RFC 3339 has it."""
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z"


def parse_time(text: str) -> int:
    """Unix time in microseconds; finer parts are cut off.

    Raises:
        ValueError: it is no time of RFC 3339.
    """
    at = datetime.fromisoformat(text.upper())
    if at.tzinfo is None:
        raise ValueError("it has no offset from UTC")
    return (at - _EPOCH) // _MICROSECOND


def shared_head(event_type: str, source: str, workspace: str) -> str:
    """The headers that events of one type and source in one workspace share."""
    return (
        f"{SPECVERSION}: {SPEC_VERSION}\r\n{TYPE}: {encode(event_type)}\r\n{SOURCE}: {encode(source)}\r\n"
        f"{WORKSPACE}: {workspace}\r\n{DATACONTENTTYPE}: {PROTOBUF}\r\n{DATASCHEMA}: {ENVELOPE}\r\n"
    )


def headers_of_event(event: Event) -> dict[str, str]:
    """The headers of the CloudEvent whose data are a whole envelope."""
    headers = {
        SPECVERSION: SPEC_VERSION,
        ID: event.id,
        SOURCE: event.source,
        TYPE: event.type,
        SUBJECT: event.subject,
        TIME: format_time(event.time),
        WORKSPACE: event.workspace_id,
        DATACONTENTTYPE: PROTOBUF,
        DATASCHEMA: ENVELOPE,
        ACTOR: event.actor,
        CORRELATION: event.correlation_id,
        TRACEPARENT: event.traceparent,
        CHANGED: ",".join(event.changed),
    }
    if event.HasField("commit"):
        commit = event.commit
        headers[COMMIT] = str(fmt.CommitPlace(commit.lsn, commit.index, commit.count))
    return {name: encode(value) for name, value in headers.items() if value}


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
