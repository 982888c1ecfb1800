"""A cursor: the point of a stream that a client goes on after.

Clients store it as opaque bytes. It names the epoch, and for the shard the sequence and
the broker's timestamp of the message there, so that a history that was rewritten under
the same sequences is noticed. Four bytes of a digest tell a damaged cursor from a good one;
they are no signature: a cursor grants nothing, what a caller may see is checked apart.

A WAL position is the other form of the same token, for who wrote to Postgres and not to the stream: SQL's
``zephyr_cursor()`` gives it, and reads wait for either (``decode_token``).

Layout: version (1 byte, 1) · epoch (10 bytes) · number of shards (1 byte), then for each
shard its number (1 byte), sequence (8) and timestamp in nanoseconds (8), all big-endian ·
digest (4 bytes, BLAKE2s of what stands before). Of a WAL position: version (1 byte, 2) · system
identifier (8) · timeline (4) · position (8) · digest (4 bytes, of SHA-256, which Postgres has).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from typing import Final

from realtime.errors import CursorInvalid

CURSOR_BYTES: Final = 33

_VERSION: Final = 1
_BODY: Final = struct.Struct(">B10sBBQQ")
_HEAD: Final = struct.Struct(">B10sBB")
_pack_place: Final = struct.Struct(">QQ").pack
_DIGEST_BYTES: Final = 4
_WAL_VERSION: Final = 2
_WAL_BODY: Final = struct.Struct(">BQIQ")


class CursorWriter:
    """Encodes cursors of one epoch: what they begin with is digested once."""

    __slots__ = ("_begun", "_head", "epoch")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self._head = _HEAD.pack(_VERSION, bytes.fromhex(epoch), 1, 0)
        self._begun = hashlib.blake2s(self._head, digest_size=_DIGEST_BYTES, person=b"zephyrcu")

    def encode(self, sequence: int, timestamp_ns: int) -> bytes:
        """The cursor after a message."""
        place = _pack_place(sequence, timestamp_ns)
        digest = self._begun.copy()
        digest.update(place)
        return self._head + place + digest.digest()


_writers: Final[dict[str, CursorWriter]] = {}
_MOST_WRITERS: Final = 4
"""A process writes cursors of one epoch, and of the next."""


def encode_cursor(epoch: str, sequence: int, timestamp_ns: int) -> bytes:
    """The bytes of a cursor."""
    writer = _writers.get(epoch)
    if writer is None:
        if len(_writers) >= _MOST_WRITERS:
            _writers.clear()
        writer = _writers[epoch] = CursorWriter(epoch)
    return writer.encode(sequence, timestamp_ns)


class Cursor:
    """A point of the stream: exclusive ("after this"). A value: never changed.

    ``epoch`` is 20 hexadecimal digits, ``timestamp_ns`` the broker's time of the message at
    ``sequence`` in nanoseconds, 0 when no message stands there (before the first one).
    """

    __slots__ = ("epoch", "sequence", "timestamp_ns")

    def __init__(self, epoch: str, sequence: int, timestamp_ns: int = 0) -> None:
        self.epoch = epoch
        self.sequence = sequence
        self.timestamp_ns = timestamp_ns

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cursor) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Cursor{self._key()!r}"

    def _key(self) -> tuple[str, int, int]:
        return self.epoch, self.sequence, self.timestamp_ns

    def encode(self) -> bytes:
        return encode_cursor(self.epoch, self.sequence, self.timestamp_ns)

    @classmethod
    def decode(cls, data: bytes) -> Cursor:
        """Reads what ``encode`` gave.

        Raises:
            CursorInvalid: the bytes are no cursor, or were damaged.
        """
        if len(data) == _WAL_BODY.size + _DIGEST_BYTES and data[0] == _WAL_VERSION:
            raise CursorInvalid(
                "it is a WAL position, and no place in the stream: reads take it as min_cursor"
            )
        if len(data) != _BODY.size + _DIGEST_BYTES:
            raise CursorInvalid(f"a cursor has {_BODY.size + _DIGEST_BYTES} bytes, this has {len(data)}")
        body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if _digest(body) != digest:
            raise CursorInvalid("its check digits do not fit: it was changed or cut")
        version, epoch, shards, shard, sequence, timestamp = _BODY.unpack(body)
        if (version, shards, shard) != (_VERSION, 1, 0):
            raise CursorInvalid(f"version {version} with {shards} shard(s) is not known here")
        return cls(epoch.hex(), sequence, timestamp)

    def to_text(self) -> str:
        """The cursor as text, for command lines and logs: base64, as protobuf's JSON form has bytes."""
        return base64.b64encode(self.encode()).decode()


class WalCursor:
    """A place in Postgres' log: what was committed before it. A value: never changed.

    ``system_id`` is Postgres' system identifier, decimal; ``lsn`` the position.
    """

    __slots__ = ("lsn", "system_id", "timeline")

    def __init__(self, system_id: str, timeline: int, lsn: int) -> None:
        self.system_id = system_id
        self.timeline = timeline
        self.lsn = lsn

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WalCursor) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"WalCursor{self._key()!r}"

    def _key(self) -> tuple[str, int, int]:
        return self.system_id, self.timeline, self.lsn

    def encode(self) -> bytes:
        body = _WAL_BODY.pack(_WAL_VERSION, int(self.system_id), self.timeline, self.lsn)
        return body + hashlib.sha256(body).digest()[:_DIGEST_BYTES]

    def to_text(self) -> str:
        """As ``zephyr_cursor()`` gives it: base64."""
        return base64.b64encode(self.encode()).decode()


def decode_token(data: bytes) -> Cursor | WalCursor:
    """Reads either form.

    Raises:
        CursorInvalid: the bytes are neither, or were damaged.
    """
    if len(data) != _WAL_BODY.size + _DIGEST_BYTES:
        return Cursor.decode(data)
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(body).digest()[:_DIGEST_BYTES] != digest:
        raise CursorInvalid("its check digits do not fit: it was changed or cut")
    version, system_id, timeline, lsn = _WAL_BODY.unpack(body)
    if version != _WAL_VERSION:
        raise CursorInvalid(f"version {version} of a WAL position is not known here")
    return WalCursor(str(system_id), timeline, lsn)


def text_to_bytes(text: str) -> bytes:
    """The bytes of a cursor that was written as text.

    Raises:
        CursorInvalid: the text is not base64, in either alphabet, with or without padding.
    """
    text = text.strip().replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise CursorInvalid("it is not base64") from exc


def _digest(body: bytes) -> bytes:
    return hashlib.blake2s(body, digest_size=_DIGEST_BYTES, person=b"zephyrcu").digest()
