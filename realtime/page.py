"""A page of the past as a batched direct get brings it.

The broker appends its own headers to those that a message was stored with, so the last of a
name is its own: anybody may store a message with a header named Nats-Sequence.

Source: the NATS documentation, ADR-31 (direct get, batched requests).
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Callable
from typing import Final

from realtime.entry import Entry, header, read_entry
from realtime.lean import Sink

_PLACE: Final = b"\r\nNats-Stream:"
"""The first of the broker's own."""
_SUBJECT: Final = "\r\nNats-Subject:"
_SEQUENCE: Final = "\r\nNats-Sequence:"
_TIME_STAMP: Final = "\r\nNats-Time-Stamp:"
_TIME: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?Z\Z")
_SECONDS_END: Final = 19


class Page:
    """Entries of one request, by its sink."""

    __slots__ = ("_epoch", "_second", "_second_ns", "entries", "failure", "is_whole", "sink")

    def __init__(self, epoch: str, arrived: Callable[[], object]) -> None:
        self.sink = Sink(arrived)
        self._epoch = epoch
        self._second = ""
        self._second_ns = 0
        self.entries: list[Entry] = []
        self.is_whole = False
        """Whether the broker said that this was all."""
        self.failure = ""

    def read(self) -> None:
        """Reads what came since."""
        for _, _, headers, payload in self.sink.take():
            if not self.is_whole:
                self._answer(headers, payload)

    def _answer(self, headers: bytes, payload: bytes) -> None:
        """Takes one answer; the one without a sequence is the last."""
        at = headers.rfind(_PLACE)
        own = headers[at:].decode("utf-8", "replace") if at >= 0 else ""
        sequence = header(own, _SEQUENCE)
        if not sequence:
            self.is_whole = True
            return
        try:
            self.entries.append(
                read_entry(
                    self._epoch,
                    header(own, _SUBJECT).encode(),
                    headers,
                    payload,
                    int(sequence),
                    self._time_ns(header(own, _TIME_STAMP)),
                )
            )
        except ValueError as exc:
            self.failure = f"an answer of the broker is not understood: {exc}"
            self.is_whole = True

    def _time_ns(self, text: str) -> int:
        """``parse_time_ns``, with the second of the message before remembered."""
        second = text[:_SECONDS_END]
        fraction = text[_SECONDS_END + 1 : -1]
        if second == self._second and text[_SECONDS_END : _SECONDS_END + 1] == "." and text.endswith("Z"):
            size = len(fraction)
            if 0 < size <= 9 and fraction.isascii() and fraction.isdigit():
                scale: int = _SCALE[size]
                return self._second_ns + int(fraction) * scale
        found = parse_time_ns(text)
        self._second = second
        self._second_ns = found - found % 1_000_000_000
        return found


_SCALE: Final = tuple([10 ** (9 - size) for size in range(10)])
"""Nanoseconds of the last digit of a fraction, by its number of digits."""


def parse_time_ns(text: str) -> int:
    """RFC 3339 in UTC with up to nine decimals as nanoseconds since 1970.

    Raises:
        ValueError: it is none.
    """
    match = _TIME.match(text)
    if match is None:
        raise ValueError(f"not a time of the broker: {text!r}")
    *whole, fraction = match.groups()
    return int(timegm(tuple([int(part) for part in whole]))) * 1_000_000_000 + int(
        (fraction or "").ljust(9, "0")
    )
