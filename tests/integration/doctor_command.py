"""The doctor as a command with its JSON, and the servers' state before and after it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import psycopg
from psycopg.rows import dict_row

from bridge.doctor.examine import examine
from bridge.doctor.finding import Finding, Severity
from bridge.mapping import load_mapping
from bridge.settings import BridgeSettings
from tests.fixtures.bridge_process import environment_for

# The slot and the publication with everything that is known of them, row versions too.
SLOTS = "SELECT to_jsonb(s) AS it FROM pg_replication_slots s WHERE slot_name = %s"
PUBLICATIONS = "SELECT to_jsonb(p) || jsonb_build_object('xmin', p.xmin::text) AS it FROM pg_publication p"
PUBLISHED = "SELECT to_jsonb(t) AS it FROM pg_publication_tables t ORDER BY 1"


@dataclass(frozen=True, slots=True)
class Examined:
    """What the command said."""

    code: int
    output: str
    findings: list[dict[str, str]]

    def severity(self, check: str) -> str:
        return max(
            (finding["severity"] for finding in self.findings if finding["check"] == check),
            key=lambda name: Severity[name.upper()],
        )


async def doctor(settings: BridgeSettings, folder: Path, *words: str, **environment: str) -> Examined:
    """Runs ``zephyr doctor`` to its end, which must come without an error line."""
    file = folder / "doctor.json"
    file.unlink(missing_ok=True)
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "zephyr", "doctor", "--json", str(file), *words],
        env=environment_for(settings) | environment,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert ended.stderr == ""
    said = json.loads(file.read_text())
    assert said["exit_code"] == ended.returncode
    return Examined(ended.returncode, ended.stdout, said["findings"])


async def findings_of(settings: BridgeSettings, **urls: str) -> dict[str, Finding]:
    """The worst finding of each check."""
    worst: dict[str, Finding] = {}
    for finding in await examine(settings, load_mapping(), **urls):
        assert "\n" not in finding.found
        if finding.check not in worst or finding.severity > worst[finding.check].severity:
            worst[finding.check] = finding
    return worst


async def state_of(settings: BridgeSettings) -> dict[str, Any]:
    """Slot, publication and stream, to be the same before and after."""
    state: dict[str, Any] = {}
    with psycopg.connect(settings.postgres_dsn, row_factory=dict_row) as connection:
        state["slot"] = connection.execute(SLOTS, (settings.slot,)).fetchall()
        state["publication"] = connection.execute(PUBLICATIONS).fetchall()
        state["published"] = connection.execute(PUBLISHED).fetchall()
    client = await nats.connect(settings.nats_url, allow_reconnect=False)
    try:
        names = json.loads((await client.request("$JS.API.STREAM.NAMES")).data)["streams"] or []
        state["streams"] = {}
        for name in names:
            info = json.loads((await client.request(f"$JS.API.STREAM.INFO.{name}")).data)
            # The time of the answer is its own.
            state["streams"][name] = {key: info[key] for key in ("config", "created", "state")}
    finally:
        await client.close()
    return state
