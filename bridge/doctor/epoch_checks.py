"""Source and stream held against each other: can the history that the stream has be continued?

The bridge asks the same at each start, and ends with the answer; here it is asked before.
What grows is read in the order slot, marks, source, so that a bridge that runs meanwhile
makes nothing look lost.
"""

from __future__ import annotations

from collections.abc import Iterator

from bridge.doctor.broker import BrokerFacts
from bridge.doctor.finding import Finding, broken, ok
from bridge.doctor.source import SourceFacts
from bridge.postgres import Source, parse_lsn
from bridge.settings import BridgeSettings
from bridge.timeline import lost_by
from protos.events.v1 import stream_format as fmt
from protos.events.v1.mark_pb2 import PositionMark

_NEW_EPOCH = "run: zephyr bridge new-epoch"
_CHECK = "epoch"
_MISSING = "changes between the two are missing"


def check_epoch(
    facts: SourceFacts, broker: BrokerFacts, source: Source | None, settings: BridgeSettings
) -> Iterator[Finding]:
    """Slot, stream, marks and server; ``source`` is None when it could not be asked."""
    if not broker.has_jetstream:
        return
    if broker.stream is None:
        if facts.slot is not None:
            yield broken(
                _CHECK,
                f"there is a slot {settings.slot!r}, and no stream {settings.stream!r}",
                "what the stream held is gone, and the slot does not give it again",
                "restore the stream, name the right ones with ZEPHYR_STREAM and ZEPHYR_SLOT, or "
                + _NEW_EPOCH,
            )
        return
    epoch = (broker.stream["config"].get("metadata") or {}).get(fmt.EPOCH_KEY)
    if epoch is None:
        # Not Zephyr's: the check of the stream says so.
        return
    mark = broker.position
    if broker.unreadable or mark is None:
        if broker.stream["state"]["last_seq"] or broker.unreadable:
            yield broken(
                _CHECK,
                broker.unreadable or f"the stream {settings.stream!r} has no position mark left",
                "what it holds of the source cannot be known",
                _NEW_EPOCH,
            )
        return
    found = list(_against_mark(facts, mark, str(epoch), source, settings))
    yield from found
    if not found:
        at = f"the last mark is at {_lsn(mark.wal_lsn)}" if mark.wal_lsn else "nothing is stored yet"
        owner = f", written by {broker.owner.owner} in term {broker.owner.term}" if broker.owner else ""
        yield ok(_CHECK, f"epoch {epoch}: {at}{owner}; source and slot go on from there")


def _against_mark(
    facts: SourceFacts, mark: PositionMark, epoch: str, source: Source | None, settings: BridgeSettings
) -> Iterator[Finding]:
    if mark.epoch != epoch:
        yield broken(
            _CHECK,
            f"the last mark is of epoch {mark.epoch}, the stream of epoch {epoch}",
            "the stream was made anew around older messages, or another bridge writes to it",
            _NEW_EPOCH,
        )
    if source is not None and mark.system_id != source.system_id:
        yield broken(
            _CHECK,
            f"the stream was written from Postgres {mark.system_id}, this is {source.system_id}",
            "positions of one server mean nothing on another",
            f"point ZEPHYR_POSTGRES_DSN at the former, or {_NEW_EPOCH}",
        )
        return
    lost = lost_by(source, mark.timeline, mark.wal_lsn, mark.commit_lsn) if source is not None else ""
    if lost:
        yield broken(
            _CHECK, lost, "the stream has changes that the server lost, or may have lost", _NEW_EPOCH
        )
    if not mark.wal_lsn:
        return
    slot = facts.slot
    if slot is None:
        yield broken(
            _CHECK,
            f"the slot {settings.slot!r} is gone, and the stream is written up to {_lsn(mark.wal_lsn)}",
            "changes since then may be missing",
            _NEW_EPOCH,
        )
    elif parse_lsn(slot.confirmed_lsn) > mark.wal_lsn:
        yield broken(
            _CHECK,
            f"the stream lost its end: the slot {settings.slot!r} was confirmed to {slot.confirmed_lsn},"
            f" the last mark says {_lsn(mark.wal_lsn)}",
            _MISSING,
            f"{_NEW_EPOCH}; then raise ZEPHYR_BRIDGE_HOLD_BACK_S above the broker's sync_interval",
        )


def _lsn(number: int) -> str:
    """As Postgres writes it."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"
