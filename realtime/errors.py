"""The server's errors.

    RealtimeError
    ├── SettingInvalid      a setting is missing or malformed
    ├── SourceUnavailable   the broker or the stream cannot be reached
    ├── StreamInvalid       the stream is not one that the bridge made
    ├── StoreUnavailable    Postgres or Redis cannot be reached
    ├── PolicyFailed        (server) a policy broke: told as INTERNAL
    ├── CoverageBroken      (client) the frames of a subscription have a gap
    ├── Gap                 (client) messages are gone from the stream, and were not seen
    ├── NotPublished        (client) an event was never sent
    ├── OutcomeUnknown      (client) an event was sent, and may be stored or not
    ├── PublishFailed       (client) some events of a publisher are not stored
    └── RequestError        a caller asked for what cannot be given; has a gRPC status
        ├── ArgumentInvalid     a field of the request is malformed
        │   └── CursorInvalid   the cursor is malformed or was tampered with
        ├── CursorReset         the position cannot be served (expired, another epoch, rewritten)
        ├── Unauthenticated     the caller is not known, or its authorization has ended
        ├── PermissionDenied    the caller may not see what was asked for
        │   └── PastGone        a list begins before what the stream still holds
        ├── NotFound            there is no such entity
        ├── LimitExceeded       too many or too much
        ├── VersionConflict     an entity's domain events are not at the version that was expected
        ├── ProducerFenced      another session of the producer began
        ├── AlreadyStored       the event was stored before, so long ago that its place is not known any more
        ├── SequencePassed      the producer's events are beyond this one, which was never stored
        └── Unavailable         try again later

Every error is one sentence that names the cause, and a ``mend`` that says what to do.
Foreign errors are translated once, where they enter, ``from exc``.
"""

from __future__ import annotations

from collections.abc import Sequence

from protos.common.v1 import error_pb2 as codes


class RealtimeError(Exception):
    """Base of all; ``exit_code`` is what the command line ends with."""

    exit_code = 1

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend


class SettingInvalid(RealtimeError):
    """A setting is missing or malformed."""

    exit_code = 2


class SourceUnavailable(RealtimeError):
    """The broker or the stream cannot be reached."""

    exit_code = 3


class StreamInvalid(RealtimeError):
    """The stream is not one that the bridge made."""

    exit_code = 4


class StoreUnavailable(RealtimeError):
    """Postgres or Redis cannot be reached."""

    exit_code = 3


class PolicyFailed(RealtimeError):
    """A policy broke; what it was asked about ends with INTERNAL."""


class CoverageBroken(RealtimeError):
    """The frames of a subscription have a gap: a fault of the server, never skipped in silence."""


class Gap(RealtimeError):
    """Messages after ``after`` up to ``through`` are gone from the stream, and were not seen."""

    def __init__(self, after: int, through: int) -> None:
        super().__init__(
            f"messages after {after} up to {through} are gone from the stream",
            "fetch the state anew, or subscribe with on_gap='continue'",
        )
        self.after = after
        self.through = through


class NotPublished(RealtimeError):
    """An event was never sent: the publisher ended before. It is not stored."""

    def __init__(self, sequence: int, cause: RealtimeError) -> None:
        super().__init__(f"event {sequence} was never sent: {cause.message}", cause.mend)
        self.sequence = sequence


class OutcomeUnknown(RealtimeError):
    """An event was sent, and the publisher ended before its result was known: it may be stored or not."""

    def __init__(self, sequence: int, cause: RealtimeError) -> None:
        super().__init__(
            f"event {sequence} may be stored or not: {cause.message}",
            "publish it again with the same producer and sequence: then it is stored once",
        )
        self.sequence = sequence


class PublishFailed(RealtimeError):
    """Some events of a publisher are not stored, and nobody asked for their results.

    ``first`` is the error of the first of them, ``sequence`` its place among the producer's events.
    """

    def __init__(self, count: int, sequence: int, first: RealtimeError) -> None:
        others = f", and {count - 1} more" if count > 1 else ""
        super().__init__(f"event {sequence} is not stored{others}: {first.message}", first.mend)
        self.count = count
        self.sequence = sequence
        self.first = first


class RequestError(RealtimeError):
    """A caller asked for what cannot be given.

    ``code`` is the gRPC status, ``reason`` the stable reason in ErrorInfo (domain
    ``zephyr``), ``violations`` pairs of field and description for BadRequest, and
    ``resource`` the pair of type and name for ResourceInfo.
    """

    code: codes.ErrorCode.ValueType = codes.ERROR_CODE_UNKNOWN
    reason = "UNKNOWN"
    violations: Sequence[tuple[str, str]] = ()
    resource: tuple[str, str] | None = None


class ArgumentInvalid(RequestError):
    """A field of the request is malformed."""

    exit_code = 2
    code = codes.ERROR_CODE_INVALID_ARGUMENT
    reason = "ARGUMENT_INVALID"

    def __init__(self, field: str, description: str, mend: str = "") -> None:
        super().__init__(f"{field}: {description}", mend)
        self.violations = ((field, description),)


class CursorInvalid(ArgumentInvalid):
    """The cursor is malformed or was tampered with."""

    reason = "CURSOR_INVALID"

    def __init__(self, description: str) -> None:
        super().__init__(
            "cursor", description, "pass a cursor exactly as it was received, or begin at earliest or live"
        )


class CursorReset(RequestError):
    """The position cannot be served; ``reason`` is EXPIRED, EPOCH_CHANGED or HISTORY_REWRITTEN.

    Raised by the client it has the earliest cursor that can be served, where the server knew it, and
    what to do: FETCH_STATE or GIVE_UP.
    """

    exit_code = 6
    code = codes.ERROR_CODE_FAILED_PRECONDITION
    earliest_cursor = b""
    action = ""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, "fetch the state anew, then begin at the earliest cursor or live")
        self.reason = reason


class Unauthenticated(RequestError):
    """The caller is not known, or its authorization has ended."""

    code = codes.ERROR_CODE_UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(RequestError):
    """The caller is known and may not see what was asked for."""

    code = codes.ERROR_CODE_PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class PastGone(CursorReset):
    """A list begins before what the stream still holds; the reason is EXPIRED."""

    code = codes.ERROR_CODE_OUT_OF_RANGE

    def __init__(self, message: str) -> None:
        super().__init__("EXPIRED", message)
        self.mend = "list from the oldest that is left: with neither from_time nor after nor page_token"


class NotFound(RequestError):
    """There is no such entity."""

    code = codes.ERROR_CODE_NOT_FOUND
    reason = "NOT_FOUND"

    def __init__(self, kind: str, entity_id: str) -> None:
        super().__init__(f"there is no {kind} {entity_id}")
        self.resource = (kind, entity_id)


class LimitExceeded(RequestError):
    """Too many or too much at once."""

    code = codes.ERROR_CODE_RESOURCE_EXHAUSTED
    reason = "LIMIT_EXCEEDED"


class VersionConflict(RequestError):
    """An entity's domain events are not at the version that was expected.

    ``conflicts`` are triples of the event's field in the request, the version that there is, and its cursor
    (empty without one). A list that is too long for a status is cut; the text says how many there are.
    """

    code = codes.ERROR_CODE_ABORTED
    reason = "VERSION_CONFLICT"
    conflicts: Sequence[tuple[str, int, bytes]] = ()

    def __init__(self, conflicts: Sequence[tuple[str, int, bytes]]) -> None:
        field, version, _ = conflicts[0]
        more = f"; {len(conflicts)} events conflict" if len(conflicts) > 1 else ""
        super().__init__(
            f"{field}: the entity's domain events are at version {version}{more}",
            "decide anew by what was published since, and expect that version",
        )
        self.conflicts = tuple(conflicts)


class ProducerFenced(RequestError):
    """Another session of the producer began; what this one still sends is refused."""

    code = codes.ERROR_CODE_ABORTED
    reason = "PRODUCER_FENCED"

    def __init__(self, producer: str, session: int) -> None:
        super().__init__(
            f"session {session} of the producer {producer!r} is not the present one",
            "let the other session go on, or open anew to take over",
        )


class AlreadyStored(RequestError):
    """The event was stored before, so long ago that its place is not known any more."""

    code = codes.ERROR_CODE_ALREADY_EXISTS
    reason = "ALREADY_STORED"

    def __init__(self) -> None:
        super().__init__("it was stored so long ago that its place is not known any more", "go on")


class SequencePassed(RequestError):
    """The producer's events are beyond this one, and it is not among them."""

    code = codes.ERROR_CODE_FAILED_PRECONDITION
    reason = "SEQUENCE_PASSED"

    def __init__(self, sequence: int, reached: int) -> None:
        super().__init__(
            f"the producer reached {reached}, and {sequence} was not stored with what stands before it",
            f"send it with a sequence above {reached}",
        )


class Unavailable(RequestError):
    """Something that is needed cannot be reached now."""

    exit_code = 3
    code = codes.ERROR_CODE_UNAVAILABLE
    reason = "UNAVAILABLE"
