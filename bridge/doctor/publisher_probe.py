"""May anybody but the bridge publish rows, marks and dead letters, or ask the bridge for something?

An application's connection tries to. Each try bears two conditions that no stream meets, a
last sequence that cannot be and a stream that is not there: where it may publish, JetStream
refuses the message, and where it may not, the broker does. Nothing is stored in either case.
An empty request moves a bridge that hears it to nothing but an answer.
Source: the NATS documentation, "JetStream headers" (Nats-Expected-Last-Sequence, -Stream).
"""

from __future__ import annotations

import asyncio
import enum
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import nats.errors
from nats.aio.client import Client as NatsClient

from bridge.doctor.broker import BrokerFacts, User, ask_user
from bridge.doctor.connection import connected
from bridge.doctor.finding import Finding, note, ok, unsafe
from bridge.errors import Unreachable
from bridge.status import status_subject
from protos.events.v1 import stream_format as fmt

ROW_SUBJECT = str(fmt.Subject(fmt.NONE, "doctor", fmt.NONE))
DEAD_LETTER_SUBJECT = f"{fmt.DEAD_LETTERS}.{fmt.SHARD}.doctor.none.0-0.1"
_TIMEOUT_S = 2
_IMPOSSIBLE_SEQUENCE = str(2**63)
_DENIED = (f"{fmt.ROOT}.*.*.*.*.row", f"{fmt.ROOT}.{fmt.MARKS}.>", f"{fmt.DEAD_LETTERS}.>", "zephyr_bridge.>")
_DENY = f"deny: [{', '.join(map(json.dumps, _DENIED))}]"
_WHY = (
    "whoever can publish there can forge rows for every client, evict the bridge's marks,"
    " or have the bridge's role read by a condition of its own"
)


class Answer(enum.Enum):
    """What came of a try. ``NOBODY``: it may publish, and nobody listens; ``SILENCE``: no answer at all."""

    REFUSED = "the broker does not let it"
    ALLOWED = "the stream got it, and refused the condition"
    NOBODY = "no stream of its account has the subject"
    SILENCE = "no answer"


@dataclass(frozen=True, slots=True)
class Probe:
    """An application's tries. ``connects`` is False when the broker did not let it in at all."""

    is_anonymous: bool
    connects: bool
    error: str = ""
    user: User | None = None
    answers: tuple[tuple[str, Answer], ...] = ()


def subjects_of(stream: str) -> dict[str, str]:
    """What is tried, each with what it would forge."""
    return {
        ROW_SUBJECT: "rows",
        fmt.OWNER_SUBJECT: "marks",
        fmt.POSITION_SUBJECT: "marks",
        DEAD_LETTER_SUBJECT: "dead letters",
        fmt.backfill_subject(stream): "requests to the bridge",
        status_subject(stream): "requests to the bridge",
    }


async def probe(url: str, timeout_s: float, is_anonymous: bool, stream: str) -> Probe:
    """Connects as an application would, and tries to publish."""
    violations: list[str] = []
    heard = asyncio.Event()

    def hear(error: str) -> None:
        # Who may not listen to answers hears that first, and then whether it may publish.
        if "permissions violation for publish" in error.lower():
            violations.append(error)
            heard.set()

    try:
        async with connected(url, timeout_s, hear) as connection:
            answers = []
            for subject in subjects_of(stream):
                heard.clear()
                violations.clear()
                answer = await _try(connection, subject, violations, heard)
                answers.append((subject, answer))
                if answer is Answer.SILENCE:
                    # It hears no answers at all: the other subjects would take as long and tell as little.
                    break
            user, _ = await ask_user(connection)
    except Unreachable as exc:
        return Probe(is_anonymous, connects=False, error=exc.message)
    return Probe(is_anonymous, True, "", user, tuple(answers))


def anonymous(url: str) -> str:
    """The URL without its credentials."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def check_publishers(facts: BrokerFacts, tried: Probe | None, stream: str) -> Iterator[Finding]:
    """What the tries of an application tell."""
    check = "nats.publishers"
    if tried is None:
        return
    who = "a connection without credentials" if tried.is_anonymous else "the application"
    if not tried.connects:
        if tried.is_anonymous:
            yield ok(check, "the broker lets nobody in without credentials")
            yield note(
                "nats.application",
                "what an application may publish is not known",
                _WHY,
                "name an application's credentials with --app-nats-url or ZEPHYR_DOCTOR_NATS_URL",
            )
        else:
            yield note(
                check,
                f"the application cannot connect: {tried.error}",
                "so what it may publish is not known",
                "correct --app-nats-url or ZEPHYR_DOCTOR_NATS_URL",
            )
        return
    yield _judge(check, who, facts, tried, stream)


def _judge(check: str, who: str, facts: BrokerFacts, tried: Probe, stream: str) -> Finding:
    elsewhere = tried.user is not None and facts.user is not None and tried.user.account != facts.user.account
    allowed = [
        subject
        for subject, answer in tried.answers
        if answer is Answer.ALLOWED or (answer is Answer.NOBODY and not elsewhere)
    ]
    silent = [subject for subject, answer in tried.answers if answer is Answer.SILENCE]
    if allowed:
        what = list(dict.fromkeys(subjects_of(stream)[subject] for subject in allowed))
        found = f"{who} may publish {', '.join(what[:-1]) + ' and ' if what[1:] else ''}{what[-1]}"
        mend = (
            "in the broker's configuration give the bridge a user of its own, and every other user"
            f" permissions {{ publish {{ {_DENY} }} }}"
        )
        if allowed == [status_subject(stream)]:
            return note(
                check, f"{who} may ask the bridge for its status", "it names hosts and processes", mend
            )
        if tried.is_anonymous and facts.listens_on_loopback:
            return note(check, f"{found}; the broker listens on this machine alone", _WHY, mend)
        return unsafe(check, found, _WHY, mend)
    if silent:
        return note(
            check,
            f"whether {who} may publish to {', '.join(silent)} could not be found out: no answer",
            _WHY,
            "let it subscribe to _INBOX.> for the time of the examination",
        )
    if elsewhere:
        return ok(check, f"{who} is in another account and does not reach the stream")
    return ok(check, f"{who} may publish neither rows nor marks nor requests")


async def _try(connection: NatsClient, subject: str, violations: list[str], heard: asyncio.Event) -> Answer:
    headers = {
        "Nats-Expected-Last-Sequence": _IMPOSSIBLE_SEQUENCE,
        "Nats-Expected-Stream": f"no-such-{secrets.token_hex(8)}",
    }
    request = asyncio.ensure_future(connection.request(subject, b"", timeout=_TIMEOUT_S, headers=headers))
    violation = asyncio.ensure_future(heard.wait())
    try:
        await asyncio.wait((request, violation), return_when=asyncio.FIRST_COMPLETED)
        if violations:
            return Answer.REFUSED
        try:
            await request
        except nats.errors.NoRespondersError:
            return Answer.NOBODY
        except (nats.errors.Error, OSError):
            return Answer.SILENCE
        return Answer.ALLOWED
    finally:
        request.cancel()
        violation.cancel()
        await asyncio.gather(request, violation, return_exceptions=True)
