"""Which messages may travel in ``other``: those that the configuration names.

With a file of descriptors (``buf build -o``, ``protoc --include_imports -o``) the bytes are held against
their type as well; without one they are stored as they are.
"""

from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import any_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError, Message

from protos.schema_name import schema_name
from realtime.errors import ArgumentInvalid, SettingInvalid

_MOST_SAID = 512
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")


class Payloads:
    """Allowed types by full name, with their class where their definition is known."""

    def __init__(
        self,
        classes: dict[str, type[Message] | None],
        pool: descriptor_pool.DescriptorPool | None = None,
    ) -> None:
        self._classes = classes
        self._pool = pool
        self._schemas = {name: _schema(name, made) for name, made in classes.items()}

    def check(self, packed: any_pb2.Any) -> str:
        """What ``data_schema`` says of a message: name, and fingerprint where the definition is known.

        Raises:
            ArgumentInvalid: it is of no allowed type, or its bytes are not.
        """
        name = packed.type_url.rpartition("/")[2]
        if name not in self._classes:
            allowed = ", ".join(sorted(self._classes)) or "none"
            raise ArgumentInvalid(
                "event.other",
                f"the type {name!r} is not allowed",
                f"add it to ZEPHYR_PUBLISH_TYPES (now: {allowed}), or use a message of the contract",
            )
        made = self._classes[name]
        if made is not None:
            try:
                made.FromString(packed.value)
            except DecodeError as exc:
                raise ArgumentInvalid("event.other", f"its bytes are no {name}") from exc
        return self._schemas[name]

    def from_json(self, document: str) -> any_pb2.Any:
        """A message of an allowed type from the JSON form of an ``Any``, which names it in ``@type``.

        Raises:
            ArgumentInvalid: it is none, or its definition is not known here.
        """
        if self._pool is None:
            raise ArgumentInvalid(
                "data",
                "JSON of other messages than those of the contract cannot be read without their definitions",
                "send it as protobuf, or set ZEPHYR_PUBLISH_DESCRIPTORS",
            )
        try:
            packed = json_format.Parse(document, any_pb2.Any(), descriptor_pool=self._pool)
        except json_format.ParseError as exc:
            raise ArgumentInvalid("data", f"it cannot be read as JSON: {one_line(exc)}") from exc
        if not packed.type_url:
            raise ArgumentInvalid("data", "it names no message", 'name it in "@type"')
        return packed


def one_line(exc: Exception) -> str:
    """What protobuf says of JSON, which may be several lines, and long."""
    return " ".join(str(exc).split())[:_MOST_SAID] or type(exc).__name__


def _schema(name: str, made: type[Message] | None) -> str:
    return name if made is None else schema_name(made.DESCRIPTOR)  # type: ignore[arg-type]  # the same, in C


def load_payloads(names: str, descriptors: str) -> Payloads:
    """From a comma-separated list, and the path of a file of descriptors, which may be empty.

    Raises:
        SettingInvalid: a name is none, the file cannot be read, or lacks one of them.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if _NAME.match(name) is None:
            raise SettingInvalid(
                f"ZEPHYR_PUBLISH_TYPES: {name!r} is no name of a message",
                "write full names, such as acme.v1.OrderPlaced, with commas between",
            )
    if not descriptors:
        return Payloads(dict.fromkeys(wanted))
    pool = descriptor_pool.DescriptorPool()
    try:
        for file in FileDescriptorSet.FromString(Path(descriptors).read_bytes()).file:
            pool.Add(file)
        return Payloads(
            {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in wanted}, pool
        )
    except (OSError, DecodeError, TypeError, KeyError) as exc:
        raise SettingInvalid(
            f"ZEPHYR_PUBLISH_DESCRIPTORS: {descriptors!r} does not hold all of ZEPHYR_PUBLISH_TYPES: {exc}",
            "write it anew, with imports: buf build -o FILE",
        ) from exc
