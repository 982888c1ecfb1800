"""What the doctor learns from a NATS with accounts and users: who may publish rows, and the sync interval.

The server is the wheel's, with a configuration of the test's own: a bridge, applications with
and without permissions, another account, and the system account.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import nats.errors
import pytest

from bridge.doctor.finding import Severity
from bridge.settings import BridgeSettings
from tests.fixtures.bridge import running, settings_for
from tests.fixtures.eventually import eventually
from tests.integration.doctor_command import doctor, findings_of, state_of
from zephyr.stack import binaries
from zephyr.stack.server import free_port

CONFIGURATION = """
host: 127.0.0.1
port: {port}
max_payload: 9MB
jetstream {{ store_dir: {store}, sync_interval: 7s }}
accounts {{
  APP {{
    jetstream: enabled
    users: [
      {{ user: bridge, password: secret }}
      {{ user: open, password: secret }}
      {{ user: rows, password: secret, permissions: {{ publish: {{ deny: ["zephyr._mark.>"] }} }} }}
      {{ user: app, password: secret,
         permissions: {{ publish: {{ deny: ["zephyr.*.*.*.*.row", "zephyr._mark.>", "zephyr-dead.>", "zephyr_bridge.>"] }} }} }}
      {{ user: letters, password: secret, permissions: {{ publish: {{
         deny: ["zephyr.*.*.*.*.row", "zephyr._mark.>", "zephyr_bridge.>"] }} }} }}
      {{ user: asks, password: secret, permissions: {{ publish: {{
         deny: ["zephyr.*.*.*.*.row", "zephyr._mark.>", "zephyr-dead.>"] }} }} }}
      {{ user: status, password: secret, permissions: {{ publish: {{
         deny: ["zephyr.*.*.*.*.row", "zephyr._mark.>", "zephyr-dead.>", "zephyr_bridge.backfill.>"] }} }} }}
      {{ user: deaf, password: secret, permissions: {{ subscribe: {{ allow: ["nothing"] }} }} }}
    ]
  }}
  OTHER {{ users: [ {{ user: other, password: secret }} ] }}
  SYS {{ users: [ {{ user: sys, password: secret }} ] }}
}}
system_account: SYS
{more}
"""


class Broker:
    """A running server; ``url`` gives it with a user's credentials."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, user: str) -> str:
        return f"nats://{user}:secret@127.0.0.1:{self.port}"

    async def answers(self) -> bool:
        try:
            client = await nats.connect(self.url("bridge"), allow_reconnect=False)
        except (OSError, nats.errors.Error):
            return False
        await client.close()
        return True


@pytest.fixture
async def broker(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """A server with the users above; parametrized with further lines of its configuration."""
    broker = Broker(free_port())
    file = tmp_path / "nats.conf"
    more = getattr(request, "param", "")
    file.write_text(
        CONFIGURATION.format(port=broker.port, store=json.dumps(str(tmp_path / "store")), more=more)
    )
    process = await asyncio.create_subprocess_exec(
        str(binaries.nats_server()), "-c", str(file), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await eventually(broker.answers, what="NATS answers")
        yield broker
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture
async def settings(broker: Broker, migrated_dsn: str, slot_name: str) -> AsyncIterator[BridgeSettings]:
    """Settings of a bridge that runs meanwhile, and holds back for 10 s."""
    given = settings_for(migrated_dsn, broker.url("bridge"), slot_name, hold_back_s=10)
    async with running(given):
        yield given


async def test_applications(broker: Broker, settings: BridgeSettings) -> None:
    wanted = {
        "open": (Severity.UNSAFE, "may publish rows, marks, dead letters and requests to the bridge"),
        "rows": (Severity.UNSAFE, "may publish rows, dead letters and requests"),
        "letters": (Severity.UNSAFE, "the application may publish dead letters"),
        "asks": (Severity.UNSAFE, "the application may publish requests to the bridge"),
        "status": (Severity.NOTE, "may ask the bridge for its status"),
        "app": (Severity.OK, "neither rows nor marks"),
        "other": (Severity.OK, "another account"),
        "deaf": (Severity.NOTE, "could not be found out"),
        "nobody": (Severity.NOTE, "cannot connect"),
    }
    for user, (severity, words) in wanted.items():
        found = (await findings_of(settings, app_url=broker.url(user)))["nats.publishers"]
        assert (user, found.severity) == (user, severity), found
        assert words in found.found


async def test_nobody_gets_in_without_credentials(settings: BridgeSettings) -> None:
    found = await findings_of(settings)
    assert found["nats.publishers"].severity is Severity.OK
    assert found["nats.application"].severity is Severity.NOTE


@pytest.mark.parametrize("broker", ["no_auth_user: open"], indirect=True)
async def test_anybody_gets_in_without_credentials(settings: BridgeSettings) -> None:
    found = (await findings_of(settings))["nats.publishers"]
    # The test's server listens on the loopback interface, as all of them do.
    assert found.severity is Severity.NOTE
    assert "without credentials may publish rows, marks" in found.found


async def test_tries_to_publish_store_nothing(
    broker: Broker, migrated_dsn: str, slot_name: str, tmp_path: Path
) -> None:
    given = settings_for(migrated_dsn, broker.url("bridge"), slot_name)
    async with running(given):
        pass
    before = await state_of(given)
    said = await doctor(
        given, tmp_path, "--app-nats-url", broker.url("open"), ZEPHYR_BRIDGE_HOLD_BACK_S="120"
    )
    assert said.code == 1, said.output
    assert said.severity("nats.publishers") == "unsafe"
    assert "secret" not in said.output
    assert await state_of(given) == before


async def test_the_sync_interval(broker: Broker, settings: BridgeSettings) -> None:
    # Not told, it is taken to be two minutes.
    found = (await findings_of(settings))["nats.sync_interval"]
    assert found.severity is Severity.UNSAFE
    assert "2 min" in found.found
    # Told, it is what the configuration says.
    found = (await findings_of(settings, system_url=broker.url("sys")))["nats.sync_interval"]
    assert found.severity is Severity.OK
    assert "7 s" in found.found
    short = settings.model_copy(update={"hold_back_s": 5})
    found = (await findings_of(short, system_url=broker.url("sys")))["nats.sync_interval"]
    assert found.severity is Severity.UNSAFE
    assert "ZEPHYR_BRIDGE_HOLD_BACK_S=7" in found.mend


@pytest.mark.parametrize("user", ["open", "nobody"])
async def test_credentials_that_are_not_the_system_accounts(
    broker: Broker, settings: BridgeSettings, user: str
) -> None:
    found = await findings_of(settings, system_url=broker.url(user))
    assert found["nats.system_account"].severity is Severity.NOTE


async def test_an_account_without_jetstream(broker: Broker, settings: BridgeSettings) -> None:
    found = await findings_of(settings.model_copy(update={"nats_url": broker.url("other")}))
    assert found["nats.jetstream"].severity is Severity.BROKEN
