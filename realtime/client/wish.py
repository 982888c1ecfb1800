"""What a subscription asks for, as the server is told it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypedDict

from protos.events.v1 import stream_pb2 as pb
from realtime.client.start import SnapshotStart, Start
from realtime.client.stores import CursorStore
from realtime.client.window import CreditWindow
from realtime.errors import ArgumentInvalid

Overflow = Literal["catch_up", "disconnect"]

_OVERFLOW = {"catch_up": pb.OVERFLOW_POLICY_CATCH_UP, "disconnect": pb.OVERFLOW_POLICY_DISCONNECT}
_MAX_LINGER_MS = 2**32 - 1


class Filters(TypedDict, total=False):
    """Which events are wanted: those that match each list that is not empty."""

    workspace: str | None
    """One more workspace (UUID)."""
    workspaces: Iterable[str]
    kinds: Iterable[str]
    """Such as ``note``."""
    entities: Iterable[str]
    """Ids of entities."""
    verbs: Iterable[str]
    """Such as ``updated``."""
    changed: Iterable[str]
    """Fields: an update is wanted only when one of them changed."""


class Options(Filters, total=False):
    """What ``Client.subscribe`` takes beside the start."""

    fields: Iterable[str]
    """Fields of the model that are delivered; all when empty."""
    overflow: Overflow
    """What happens when the handler is slower than events match. ``catch_up`` by default."""
    max_linger_ms: int | None
    """How long an event may wait for others to share its frame; as the load is when None."""
    credit: CreditWindow | None
    """How much may come before the handler is done with what came."""
    patience_s: float | None
    """How long it tries to reach a server that is away; for ever when None."""
    store: CursorStore | None
    """Where the cursor is kept; it goes on after what is found there. Needs ``name``."""
    name: str
    """What the cursor is called in the store."""
    save_every_s: float
    """While events come without a pause, the cursor is saved this often at most."""


def filter_message(filters: Filters) -> pb.Filter:
    """The filter as it is sent."""
    workspace = filters.get("workspace")
    return pb.Filter(
        workspace_ids=sorted({*_texts(filters, "workspaces"), *((workspace,) if workspace else ())}),
        kinds=sorted(_texts(filters, "kinds")),
        entity_ids=sorted(_texts(filters, "entities")),
        verbs=sorted(_texts(filters, "verbs")),
        changed_fields=sorted(_texts(filters, "changed")),
    )


@dataclass(frozen=True, slots=True)
class Wish:
    """All of it but the start, which is another one at every connection."""

    open: pb.OpenSubscription
    window: CreditWindow

    def request(self, start: Start | SnapshotStart) -> pb.OpenSubscription:
        request = pb.OpenSubscription()
        request.CopyFrom(self.open)
        request.start.CopyFrom(start.message())
        return request


def make_wish(options: Options, *, broadcasts: bool = False) -> Wish:
    """
    Raises:
        ArgumentInvalid: an option cannot be what it is.
    """
    window = options.get("credit") or CreditWindow()
    overflow = options.get("overflow", "catch_up")
    if overflow not in _OVERFLOW:
        raise ArgumentInvalid("overflow", f"{overflow!r} is no policy", "'catch_up' or 'disconnect'")
    request = pb.OpenSubscription(
        filter=filter_message(options),
        credit=window.message(),
        overflow_policy=_OVERFLOW[overflow],
        broadcasts=broadcasts,
    )
    request.field_mask.paths.extend(_texts(options, "fields"))
    linger_ms = options.get("max_linger_ms")
    if linger_ms is not None:
        if not 0 <= linger_ms <= _MAX_LINGER_MS:
            raise ArgumentInvalid("max_linger_ms", f"{linger_ms} cannot be", "0 to 1000")
        request.max_linger_ms = linger_ms
    return Wish(request, window)


def _texts(
    options: Filters, name: Literal["workspaces", "kinds", "entities", "verbs", "changed", "fields"]
) -> Iterable[str]:
    given: Iterable[str] = options.get(name) or ()  # type: ignore[assignment]  # every one of them is
    if isinstance(given, str):
        # A text is a sequence of texts as well: "note" would be asked for letter by letter.
        raise ArgumentInvalid(name, f"{given!r} is one text, a list is needed", f"pass {name}=[{given!r}]")
    return given
