"""A cursor: the point of a stream that a client goes on after.

Clients store it as opaque bytes. It names the epoch, and for the shard the sequence and
the broker's timestamp of the message there, so that a history that was rewritten under
the same sequences is noticed. Four bytes of a digest tell a damaged cursor from a good one;
they are no signature: a cursor grants nothing, what a caller may see is checked apart.

Layout: version (1 byte, 1) · epoch (10 bytes) · number of shards (1 byte), then for each
shard its number (1 byte), sequence (8) and timestamp in nanoseconds (8), all big-endian ·
digest (4 bytes, BLAKE2s of what stands before).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from realtime.errors import CursorInvalid

_VERSION = 1
_BODY = struct.Struct(">B10sBBQQ")
_DIGEST_BYTES = 4


@dataclass(frozen=True, slots=True)
class Cursor:
    """A point of the stream: exclusive ("after this").

    ``epoch`` is 20 hexadecimal digits, ``timestamp_ns`` the broker's time of the message at
    ``sequence`` in nanoseconds, 0 when no message stands there (before the first one).
    """

    epoch: str
    sequence: int
    timestamp_ns: int = 0

    def encode(self) -> bytes:
        body = _BODY.pack(_VERSION, bytes.fromhex(self.epoch), 1, 0, self.sequence, self.timestamp_ns)
        return body + _digest(body)

    @classmethod
    def decode(cls, data: bytes) -> Cursor:
        """Reads what ``encode`` gave.

        Raises:
            CursorInvalid: the bytes are no cursor, or were damaged.
        """
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
