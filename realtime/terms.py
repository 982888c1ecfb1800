"""What a client asked for when it opened a subscription, beside where it begins."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from protos.events.v1 import stream_pb2 as pb
from protos.models.v1.membership_pb2 import Membership
from protos.models.v1.note_pb2 import Note
from protos.models.v1.user_pb2 import User
from protos.models.v1.workspace_pb2 import Workspace
from realtime.errors import ArgumentInvalid
from realtime.filters import Filter, compile_filter
from realtime.mask import Mask, compile_mask

_MODELS = (Note.DESCRIPTOR, User.DESCRIPTOR, Workspace.DESCRIPTOR, Membership.DESCRIPTOR)
_MAX_LINGER_MS = 1000
_SHARED_BYTES = 1024
"""Filters up to this size are compiled once, and shared by those who ask for the same."""

AUTO_LINGER_S = 0.002
"""How long an event waits for others when a frame was sent just before it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """``messages`` and ``bytes`` are the credit to begin with, None for no bound. ``linger_s`` None: as the load is."""

    wanted: Filter
    mask: Mask | None = None
    disconnects: bool = False
    linger_s: float | None = None
    messages: int | None = None
    bytes: int | None = None
    page_size: int | None = None
    """Of the snapshot that it begins with, 0 for the server's choice; None: it begins with none."""
    broadcasts: bool = False
    """Whether broadcasts that match are given too."""


def compile_terms(request: pb.OpenSubscription, kinds: Collection[str]) -> Terms:
    """Checks what a client asked for; ``kinds`` are those that exist.

    Raises:
        ArgumentInvalid: a part of it is malformed; LimitExceeded: the filter is too large.
    """
    if request.overflow_policy not in pb.OverflowPolicy.values():
        raise ArgumentInvalid(
            "open.overflow_policy", f"{request.overflow_policy} is none", "CATCH_UP or DISCONNECT"
        )
    if request.max_linger_ms > _MAX_LINGER_MS:
        raise ArgumentInvalid("open.max_linger_ms", f"{request.max_linger_ms} is over {_MAX_LINGER_MS}")
    messages, size = amounts(request.credit)
    for name, amount in (("messages", messages), ("bytes", size)):
        if amount is not None and amount < 0:
            raise ArgumentInvalid(f"open.credit.{name}", f"{amount} is negative", "grant 0 or more")
    wanted, mask = request.filter, request.field_mask
    is_small = wanted.ByteSize() + mask.ByteSize() <= _SHARED_BYTES
    if is_small:
        admitted, masked = _compile_shared(
            wanted.SerializeToString(deterministic=True), tuple(mask.paths), frozenset(kinds)
        )
    else:
        admitted, masked = compile_filter(wanted, kinds), compile_mask(mask.paths, _MODELS)
    return Terms(
        admitted,
        masked,
        request.overflow_policy == pb.OVERFLOW_POLICY_DISCONNECT,
        request.max_linger_ms / 1000 if request.HasField("max_linger_ms") else None,
        messages,
        size,
        request.start.snapshot.page_size if request.start.WhichOneof("position") == "snapshot" else None,
        request.broadcasts,
    )


@lru_cache(maxsize=1024)
def _compile_shared(
    wanted: bytes, paths: tuple[str, ...], kinds: frozenset[str]
) -> tuple[Filter, Mask | None]:
    return compile_filter(pb.Filter.FromString(wanted), kinds), compile_mask(paths, _MODELS)


def amounts(credit: pb.Credit) -> tuple[int | None, int | None]:
    """Events and bytes of a credit; None for what is not set."""
    return (
        credit.messages if credit.HasField("messages") else None,
        credit.bytes if credit.HasField("bytes") else None,
    )
