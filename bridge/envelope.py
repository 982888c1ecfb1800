"""The envelope of an event: subject, headers, and the fields around its data.

The fixed parts are found once a relation version. The fields are written in the order of
their numbers, as protobuf itself does, so that the bytes are those that
``Event.SerializeToString`` would give (a property test holds them to that).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from bridge.errors import EventTooLarge
from bridge.mapping import TableMapping
from bridge.outgoing import Moment, Outgoing
from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from protos.schema_name import schema_name
from protos.wire import delimited, varint

# Final, so that compiled code has them at hand: what is looked up in a module costs more than a join.
_ID_TAG: Final = varint(Event.DESCRIPTOR.fields_by_name["id"].number << 3 | 2)
_SUBJECT_TAG: Final = varint(Event.DESCRIPTOR.fields_by_name["subject"].number << 3 | 2)
_WORKSPACE_TAG: Final = varint(Event.DESCRIPTOR.fields_by_name["workspace_id"].number << 3 | 2)
_SUBJECT_HEAD: Final = f"{fmt.ROOT}.{fmt.SHARD}."
_ID_HEAD: Final = f"{fmt.ID}: "


class Envelope:
    """The envelopes of one relation version. ``max_bytes`` is the most that a payload may have."""

    def __init__(self, mapping: TableMapping, source: str, max_bytes: int) -> None:
        self._table = mapping.name
        self._kind = mapping.kind
        self._max_bytes = max_bytes
        self._schema = schema = schema_name(mapping.message)
        self._schema_field = delimited(Event.DATA_SCHEMA_FIELD_NUMBER, schema.encode())
        # By verb: the fields of type and source, and the headers between id and place.
        self._of_verb = {
            verb: (
                delimited(Event.TYPE_FIELD_NUMBER, f"{mapping.kind}.{verb}".encode())
                + delimited(Event.SOURCE_FIELD_NUMBER, source.encode()),
                f"\r\n{fmt.VERB}: {verb}\r\n{fmt.SCHEMA}: {schema}\r\n{fmt.COMMIT}: ",
            )
            for verb in fmt.ROW_VERBS
        }

    def change(
        self,
        verb: str,
        changed: tuple[str, ...],
        entity: str,
        workspace: str,
        data: bytes,
        moment: Moment,
        index: int,
        count: int,
    ) -> Outgoing:
        """The message at ``index`` of its transaction; ``count`` is 0 but on the last one.

        Raises:
            EventTooLarge: the payload is over the limit.
        """
        identity = f"{moment.id_prefix}{index}"
        place = f"{moment.place_prefix}{index}/{count}" if count else f"{moment.place_prefix}{index}"
        fields, head = self._of_verb[verb]
        changed_head, changed_fields = _changed(changed) if changed else ("", b"")
        between = changed_fields + moment.commit_field(index, count)
        if moment.context_fields:
            # By number they stand between the schema, which comes next, and the data.
            data = moment.context_fields + data
        return Outgoing(
            f"{_SUBJECT_HEAD}{workspace}.{self._kind}.{entity}.row",
            f"{_ID_HEAD}{identity}{head}{place}\r\n{changed_head}{moment.context_head}",
            self._payload(fields, identity, entity, workspace, moment.time_field, between, data),
        )

    def state(
        self, verb: str, entity: str, workspace: str, data: bytes, id_prefix: str, time_field: bytes
    ) -> Outgoing:
        """The message of a row's state that is no change of a transaction. Its id is the prefix with
        the row's place in the subject behind it.

        Raises:
            EventTooLarge: the payload is over the limit.
        """
        place = f"{workspace}.{self._kind}.{entity}"
        identity = f"{id_prefix}{place}"
        return Outgoing(
            f"{_SUBJECT_HEAD}{place}.row",
            f"{_ID_HEAD}{identity}\r\n{fmt.VERB}: {verb}\r\n{fmt.SCHEMA}: {self._schema}\r\n",
            self._payload(self._of_verb[verb][0], identity, entity, workspace, time_field, b"", data),
        )

    def _payload(
        self,
        fields: bytes,
        identity: str,
        entity: str,
        workspace: str,
        time_field: bytes,
        between: bytes,
        data: bytes,
    ) -> bytes:
        raw_id, raw_entity, raw_workspace = identity.encode(), entity.encode(), workspace.encode()
        payload = b"".join(
            (
                _ID_TAG,
                varint(len(raw_id)),
                raw_id,
                fields,
                _SUBJECT_TAG,
                varint(len(raw_entity)),
                raw_entity,
                time_field,
                _WORKSPACE_TAG,
                varint(len(raw_workspace)),
                raw_workspace,
                between,
                self._schema_field,
                data,
            )
        )
        if len(payload) > self._max_bytes:
            raise EventTooLarge(
                f"{self._table} {entity}: its event has {len(payload)} bytes, over the limit of {self._max_bytes}",
                "raise ZEPHYR_BRIDGE_MAX_EVENT_BYTES, and the broker's max_payload above it",
            )
        return payload


@lru_cache(maxsize=1024)
def _changed(names: tuple[str, ...]) -> tuple[str, bytes]:
    """The names of changed fields as a header and as the envelope's field."""
    fields = [delimited(Event.CHANGED_FIELD_NUMBER, name.encode()) for name in names]
    return f"{fmt.CHANGED}: {','.join(names)}\r\n", b"".join(fields)
