"""What Docker would only say on a machine that has it: compose file and Dockerfile hold together.

The compose file is held against the Compose specification's own schema, its commands against
the real command line, its variables against the settings that read them, the broker's
configuration against the real broker, and the Dockerfile against the project's files.
"""

from __future__ import annotations

import graphlib
import importlib
import importlib.util
import json
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

import bridge
import realtime
import zephyr

ROOT = Path(__file__).resolve().parents[2]
OURS = ("migrate", "bridge", "server")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """Instructions and what stands behind them, in order, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line]


def test_it_is_what_the_specification_allows(compose: dict[str, Any]) -> None:
    package = resources.files("check_jsonschema.builtin_schemas.vendor")
    schema = json.loads((package / "compose-spec.json").read_text("utf-8"))
    jsonschema.validators.validator_for(schema)(schema).validate(compose)


def test_what_a_service_names_is_declared(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        volumes = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert volumes <= compose["volumes"].keys(), name
        configs = {config["source"] for config in service.get("configs", [])}
        assert configs <= compose["configs"].keys(), name


def test_start_order(services: dict[str, Any]) -> None:
    order = {name: service.get("depends_on", {}) for name, service in services.items()}
    tuple(graphlib.TopologicalSorter(order).static_order())  # raises CycleError
    for name, waits_for in order.items():
        for other, how in waits_for.items():
            match how["condition"]:
                case "service_healthy":
                    assert services[other]["healthcheck"]["test"], f"{name} waits for {other}'s health"
                case "service_completed_successfully":
                    assert services[other]["restart"] == "no", f"{other} would never be complete"
                case condition:
                    pytest.fail(f"{name} waits for {other} with {condition}, which proves nothing")


def test_every_long_running_service_has_a_health_check_and_comes_back(services: dict[str, Any]) -> None:
    for name in services.keys() - {"migrate"}:
        assert services[name]["restart"] == "unless-stopped", name
        assert services[name]["healthcheck"]["test"][0] == "CMD", f"{name}: no shell in between"


def test_ports_are_published_on_this_machine_alone(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), name


@pytest.mark.parametrize("name", OURS)
def test_our_parts_have_no_rights(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "user", "volumes"} & service.keys()


def test_commands_are_of_the_command_line(services: dict[str, Any]) -> None:
    for name in OURS:
        _parse(services[name]["command"])
        test = services[name].get("healthcheck", {}).get("test", [])
        if test[1:2] == ["zephyr"]:
            _parse(test[2:])


def test_the_server_listens_where_it_is_published_and_asked(services: dict[str, Any]) -> None:
    server = services["server"]
    port = server["command"][server["command"].index("--listen") + 1].rsplit(":", 1)[1]
    assert server["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert server["healthcheck"]["test"][-1] == f"127.0.0.1:{port}"


def test_the_ready_file_is_the_one_asked_for_and_is_gone_after_a_restart(services: dict[str, Any]) -> None:
    command = services["bridge"]["command"]
    ready = command[command.index("--ready-file") + 1]
    assert services["bridge"]["healthcheck"]["test"] == ["CMD", "test", "-s", ready]
    assert str(Path(ready).parent) in [mount.split(":")[0] for mount in services["bridge"]["tmpfs"]]


def test_variables_are_read_by_something(services: dict[str, Any]) -> None:
    known = set(_variables())
    for name in OURS:
        given = services[name]["environment"].keys()
        assert given <= known, f"{name}: nothing reads {sorted(given - known)}"


def test_the_broker_takes_its_configuration(compose: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "nats.conf"
    content = (ROOT / compose["configs"]["nats"]["file"]).read_text("utf-8")
    file.write_text(content.replace("/data", str(tmp_path / "data")), "utf-8")
    broker = Path(sys.executable).parent / "nats-server"
    given = compose["services"]["nats"]["environment"]
    # Each variable has a default, "${NAME:-default}", so that a trial needs none.
    defaults = {name: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value) for name, value in given.items()}
    result = subprocess.run(
        [broker, "-t", "-c", file], capture_output=True, text=True, check=False, env=os.environ | defaults
    )
    assert result.returncode == 0, result.stderr
    # The slot may be confirmed at once only where an acknowledgement means "on the disk".
    hold_back = compose["services"]["bridge"]["environment"]["ZEPHYR_BRIDGE_HOLD_BACK_S"]
    assert ("sync_interval: always" in content) == (hold_back == "0")


def test_the_image_runs_as_a_user_without_rights(
    dockerfile: list[tuple[str, str]], services: dict[str, Any]
) -> None:
    last_stage = dockerfile[max(i for i, (word, _) in enumerate(dockerfile) if word == "FROM") :]
    user = next(rest for word, rest in reversed(last_stage) if word == "USER")
    uid, gid = (int(part) for part in user.split(":"))
    assert uid >= 10000
    assert gid >= 10000
    for name in OURS:
        owners = [mount for mount in services[name]["tmpfs"] if "uid=" in mount]
        assert all(f"uid={uid},gid={gid}" in mount for mount in owners), name


def test_the_entry_point_is_a_command_of_the_project(dockerfile: list[tuple[str, str]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found = dict(dockerfile)
    (entry,) = json.loads(found["ENTRYPOINT"])
    assert entry in project["scripts"]
    assert found["STOPSIGNAL"] == "SIGTERM"
    module, function = project["scripts"][entry].split(":")
    assert callable(getattr(importlib.import_module(module), function))
    labels = dict(part.split("=", 1) for part in shlex.split(found["LABEL"]))
    assert labels["org.opencontainers.image.version"] == project["version"]
    assert labels["org.opencontainers.image.licenses"] == project["license"]


def test_what_the_image_copies_is_there_and_is_sent(dockerfile: list[tuple[str, str]]) -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] == "!"}
    sources = {
        source
        for word, rest in dockerfile
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert sources == sent
    assert [source for source in sorted(sources) if not (ROOT / source).exists()] == []


def _parse(arguments: list[str]) -> None:
    """Parses a command line as ``zephyr`` would, and runs nothing.

    Raises:
        typer.BadParameter or another usage error: the command line refuses it.
    """
    from zephyr.cli import command_line

    rest = list(arguments)
    command: Any = typer.main.get_command(command_line())
    name = "zephyr"
    context = None
    while hasattr(command, "get_command"):
        name = rest.pop(0)
        context = command.context_class(command, info_name=name, parent=context)
        command = command.get_command(context, name)
        assert command is not None, f"there is no command {name!r} in {arguments}"
    command.make_context(name, rest, parent=context)


def _variables() -> Iterator[str]:
    """Every environment variable that the settings of our packages read."""
    for package in (bridge, realtime, zephyr):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            spec = importlib.util.find_spec(module.name)
            if spec and spec.origin and "BaseSettings" in Path(spec.origin).read_text("utf-8"):
                importlib.import_module(module.name)
    pending = list(BaseSettings.__subclasses__())
    while pending:
        settings = pending.pop()
        pending += settings.__subclasses__()
        prefix = settings.model_config.get("env_prefix", "")
        for name, field in settings.model_fields.items():
            match field.validation_alias:
                case None:
                    yield f"{prefix}{name}".upper()
                case AliasChoices(choices=choices):
                    yield from (choice for choice in choices if isinstance(choice, str))
                case alias:
                    yield str(alias)
