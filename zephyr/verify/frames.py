"""Cuts what a NATS client sends into whole commands, so that a proxy can stop between two of them.

Source: "NATS Protocol", client protocol. PUB and HPUB are followed by as many bytes as their
last number says, and a line's end; every other command is one line.
"""

from __future__ import annotations

_LIMIT_BYTES = 16 << 20


class ClientFrames:
    """Takes bytes as they come; gives each whole command, and whether it publishes a row's event."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """The commands that are whole now.

        Raises:
            ValueError: one is larger than any that the bridge sends.
        """
        self._rest += data
        found: list[tuple[bytes, bool]] = []
        at = 0
        while (end := self._rest.find(b"\r\n", at)) >= 0:
            words = bytes(self._rest[at:end]).split()
            after = end + 2
            publishes = bool(words) and words[0].upper() in (b"PUB", b"HPUB")
            if publishes:
                after += int(words[-1]) + 2
                if after > len(self._rest):
                    break
            found.append((bytes(self._rest[at:after]), publishes and words[1].endswith(b".row")))
            at = after
        del self._rest[:at]
        if len(self._rest) > _LIMIT_BYTES:
            raise ValueError(f"a command of more than {_LIMIT_BYTES} bytes")
        return found
