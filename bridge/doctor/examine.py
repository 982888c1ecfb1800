"""The whole examination: what each server says, and then the checks.

The order of reading is slot, marks, source: a running bridge moves all of them on, and never
the other way round. A server that is away is one finding; the other is examined all the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from bridge.doctor.broker import BrokerFacts, read_broker
from bridge.doctor.broker_checks import check_broker
from bridge.doctor.clock import Clock, check_clocks
from bridge.doctor.epoch_checks import check_epoch
from bridge.doctor.finding import Finding, away, broken
from bridge.doctor.publication_checks import check_fit, check_publication
from bridge.doctor.publisher_probe import Probe, anonymous, check_publishers, probe
from bridge.doctor.slot_checks import check_slot
from bridge.doctor.source import SourceFacts, read_identity, read_source
from bridge.doctor.source_checks import check_source
from bridge.errors import BridgeError, SettingInvalid, SourceUnfit, Unreachable
from bridge.mapping import Mapping
from bridge.postgres import Source
from bridge.settings import BridgeSettings


async def examine(
    settings: BridgeSettings,
    mapping: Mapping,
    app_url: str | None = None,
    system_url: str | None = None,
) -> list[Finding]:
    """All findings, those without trouble too, in the order of reading.

    ``app_url`` has an application's NATS credentials; without it a connection without
    credentials tries. ``system_url`` has those of the system account, if they are at hand.

    Raises:
        SettingInvalid: a setting is malformed.
    """
    findings: list[Finding] = []
    facts = await _source(settings, mapping, findings)
    broker = await _broker(settings, system_url, findings)
    if facts is not None and facts.slot is None and broker is not None and broker.position is not None:
        # A bridge's first start may have made its slot between the two.
        facts = await _source(settings, mapping, findings)
        broker = await _broker(settings, system_url, findings)
    tried: Probe | None = None
    if broker is not None:
        url = app_url if app_url is not None else anonymous(settings.nats_url)
        tried = await probe(
            url, settings.publish_timeout_s, is_anonymous=app_url is None, stream=settings.stream
        )
    source = await _identity(settings, facts, findings) if facts is not None else None
    findings += _checks(settings, mapping, facts, broker, tried, source)
    return findings


def _checks(
    settings: BridgeSettings,
    mapping: Mapping,
    facts: SourceFacts | None,
    broker: BrokerFacts | None,
    tried: Probe | None,
    source: Source | None,
) -> Iterator[Finding]:
    clocks: dict[str, Clock] = {}
    if facts is not None:
        yield from check_source(facts, settings)
        yield from check_fit(facts, mapping)
        yield from check_publication(facts, mapping, settings)
        yield from check_slot(facts, settings)
        if facts.clock is not None:
            clocks["Postgres"] = facts.clock
    if broker is not None:
        yield from check_broker(broker, settings)
        yield from check_publishers(broker, tried, settings.stream)
        if broker.clock is not None:
            clocks["NATS"] = broker.clock
    if facts is not None and broker is not None:
        yield from check_epoch(facts, broker, source, settings)
    yield from check_clocks(clocks)


async def _source(settings: BridgeSettings, mapping: Mapping, findings: list[Finding]) -> SourceFacts | None:
    try:
        return await read_source(settings, mapping)
    except SettingInvalid:
        raise
    except Unreachable as exc:
        findings.append(away("postgres", exc.message, exc.mend))
    except SourceUnfit as exc:
        findings.append(broken("postgres", exc.message, "the bridge cannot read from it", exc.mend))
    return None


async def _broker(
    settings: BridgeSettings, system_url: str | None, findings: list[Finding]
) -> BrokerFacts | None:
    try:
        return await read_broker(settings, system_url)
    except Unreachable as exc:
        findings.append(away("nats", exc.message, exc.mend))
    except BridgeError as exc:
        findings.append(broken("nats", exc.message, "the bridge cannot write to it", exc.mend))
    return None


async def _identity(settings: BridgeSettings, facts: SourceFacts, findings: list[Finding]) -> Source | None:
    if not facts.may_replicate:
        # A finding of its own says so.
        return None
    try:
        return await read_identity(settings)
    except BridgeError as exc:
        mend = exc.mend or "allow the role in pg_hba.conf, for the database and not for `replication`"
        findings.append(
            broken(
                "postgres.replication_session",
                f"a replication session cannot be opened: {exc.message}",
                "the bridge reads over one",
                mend,
            )
        )
    return None
