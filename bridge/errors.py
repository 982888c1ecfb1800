"""The bridge's errors.

    BridgeError                 one sentence for the cause, and the mend
    ├── SettingInvalid          a setting or the mapping file is malformed
    ├── Unreachable             Postgres or NATS cannot be reached: tried again
    ├── SourceUnfit             Postgres is not set up for the bridge
    │   └── MappingMismatch     mapping, live schema and contract do not fit
    ├── SlotBusy                another bridge holds the slot
    ├── StreamUnfit             the stream exists with other settings
    │   └── HistoryGone         the stream or its marks are gone
    ├── EpochLost               the source or the stream is not the one of the last mark
    ├── Fenced                  another bridge took over
    └── EventRejected           a row cannot become an event
        └── EventTooLarge       its event is over the limit
    ProtocolError               bytes that are no pgoutput message: a bug or a foreign server

``Unreachable`` ends a term and begins another, and so do, by setting, ``SlotBusy`` and
``Fenced`` (a standby), ``MappingMismatch`` (a pause), ``EpochLost`` (a renewal). A rejected
row goes to the dead letters. All others end the process, with nothing confirmed that is not
stored.
"""

from __future__ import annotations


class BridgeError(Exception):
    """Base of all; ``exit_code`` is what the command line ends with."""

    exit_code = 1

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend


class SettingInvalid(BridgeError):
    """A setting or the mapping file is malformed."""

    exit_code = 2


class Unreachable(BridgeError):
    """Postgres or NATS cannot be reached now."""

    exit_code = 3


class SourceUnfit(BridgeError):
    """Postgres is not set up for the bridge."""

    exit_code = 4


class MappingMismatch(SourceUnfit):
    """Mapping, live schema and protobuf message do not fit; ``mismatches`` has one line each."""

    def __init__(self, mismatches: list[str]) -> None:
        self.mismatches = mismatches
        lines = "".join(f"\n  - {line}" for line in mismatches)
        count = f"{len(mismatches)} mismatch{'es' if len(mismatches) != 1 else ''}"
        super().__init__(f"the mapping does not fit the database, {count}:{lines}")


class SlotBusy(BridgeError):
    """Another bridge holds the slot."""

    exit_code = 5


class StreamUnfit(BridgeError):
    """The stream exists with other settings."""

    exit_code = 4


class HistoryGone(StreamUnfit):
    """The stream or its marks are gone: only a new epoch helps."""


class EpochLost(BridgeError):
    """The source or the stream is not the one that the last mark speaks of."""

    exit_code = 6


class Fenced(BridgeError):
    """Another bridge took over: nothing more of this one is stored."""

    exit_code = 5


class EventRejected(BridgeError):
    """A row cannot become an event. ``reason`` is value, too large, routing, schema or incomplete;
    ``column`` is the one at fault, where one is."""

    exit_code = 7
    reason = "value"

    def __init__(self, message: str, mend: str = "", *, reason: str = "", column: str = "") -> None:
        super().__init__(message, mend)
        self.reason = reason or type(self).reason
        self.column = column


class EventTooLarge(EventRejected):
    """A row's event is over the limit."""

    reason = "too large"


class ProtocolError(BridgeError):
    """Bytes that are no pgoutput message."""
