"""A page token: where a list goes on, and where it ends.

A list is of one moment: its end is fixed with its first page, so that it comes to an end
while the stream grows, and a token gives the same page however often it is handed in. It
belongs to one question, and is refused with another.

Layout: version (1 byte, 1) · epoch (10 bytes) · sequence and timestamp of the place (8 and 8),
of the end (8 and 8), big-endian · digest of the question (8) · digest of all that (4, BLAKE2s).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from realtime.cursor import Cursor
from realtime.errors import ArgumentInvalid

_VERSION = 1
_BODY = struct.Struct(">B10sQQQQ8s")
_DIGEST_BYTES = 4
_QUESTION_BYTES = 8
_FIELD = "page.page_token"


@dataclass(frozen=True, slots=True)
class PageToken:
    """Everything up to ``after`` was examined; the list ends at ``end``. Both are of one epoch."""

    after: Cursor
    end: Cursor

    def encode(self, question: bytes) -> str:
        """The token as text; ``question`` is what it belongs to."""
        after, end = self.after, self.end
        body = _BODY.pack(
            _VERSION,
            bytes.fromhex(after.epoch),
            after.sequence,
            after.timestamp_ns,
            end.sequence,
            end.timestamp_ns,
            _digest(question, _QUESTION_BYTES),
        )
        return base64.urlsafe_b64encode(body + _digest(body, _DIGEST_BYTES)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, question: bytes) -> PageToken:
        """Reads what ``encode`` gave.

        Raises:
            ArgumentInvalid: it is no page token, was damaged, or belongs to another question.
        """
        try:
            data = base64.b64decode(
                text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
            )
        except (binascii.Error, ValueError) as exc:
            raise _invalid("it is not base64") from exc
        body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if len(body) != _BODY.size or _digest(body, _DIGEST_BYTES) != digest or body[0] != _VERSION:
            raise _invalid("it was changed or cut")
        _, epoch, sequence, timestamp, end, end_timestamp, asked = _BODY.unpack(body)
        if asked != _digest(question, _QUESTION_BYTES):
            raise ArgumentInvalid(
                _FIELD,
                "it belongs to another list",
                "ask with the filter, times and cursor of the first page",
            )
        name = epoch.hex()
        return cls(Cursor(name, sequence, timestamp), Cursor(name, end, end_timestamp))


def _invalid(cause: str) -> ArgumentInvalid:
    return ArgumentInvalid(_FIELD, cause, "pass next_page_token exactly as it was received")


def _digest(data: bytes, size: int) -> bytes:
    return hashlib.blake2s(data, digest_size=size, person=b"zephyrpt").digest()
