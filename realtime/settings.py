"""The server's settings: read once from the environment, checked, and passed down."""

from __future__ import annotations

from typing import Annotated

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from protos.events.v1 import stream_format as fmt
from protos.events.v1.event_pb2 import Event
from realtime.errors import SettingInvalid

_MIB = 1024 * 1024


def _env(name: str) -> AliasChoices:
    return AliasChoices(name.removeprefix("ZEPHYR_").lower(), name)


class ServerSettings(BaseSettings):
    """Where the servers are, where to listen, and the bounds of what is kept in memory."""

    model_config = SettingsConfigDict(env_prefix="ZEPHYR_", populate_by_name=True, extra="ignore")

    nats_url: str = "nats://127.0.0.1:4222"
    postgres_dsn: str = "postgresql://postgres@127.0.0.1:5432/postgres"
    redis_url: str = "redis://127.0.0.1:6379/0"
    stream: str = "ZEPHYR"
    listen: str = "127.0.0.1:7400"
    extra_kinds: Annotated[str, Field(validation_alias=_env("ZEPHYR_KINDS"))] = ""

    ring_entries: Annotated[int, Field(ge=16, validation_alias=_env("ZEPHYR_RING_ENTRIES"))] = 65_536
    ring_bytes: Annotated[int, Field(ge=_MIB, validation_alias=_env("ZEPHYR_RING_BYTES"))] = 64 * _MIB
    drain_s: Annotated[float, Field(ge=0, validation_alias=_env("ZEPHYR_DRAIN_S"))] = 10
    keepalive_s: Annotated[float, Field(ge=1, le=3600, validation_alias=_env("ZEPHYR_KEEPALIVE_S"))] = 30
    keepalive_timeout_s: Annotated[
        float, Field(ge=1, le=3600, validation_alias=_env("ZEPHYR_KEEPALIVE_TIMEOUT_S"))
    ] = 10

    publish_types: Annotated[str, Field(validation_alias=_env("ZEPHYR_PUBLISH_TYPES"))] = ""
    publish_descriptors: Annotated[str, Field(validation_alias=_env("ZEPHYR_PUBLISH_DESCRIPTORS"))] = ""
    publish_max_bytes: Annotated[
        int, Field(ge=1024, le=8 * _MIB, validation_alias=_env("ZEPHYR_PUBLISH_MAX_BYTES"))
    ] = 8 * _MIB
    publish_window_bytes: Annotated[
        int, Field(ge=_MIB, validation_alias=_env("ZEPHYR_PUBLISH_WINDOW_BYTES"))
    ] = 256 * _MIB
    """Of all publishers' events together that wait to be stored."""
    broadcast_bytes: Annotated[
        int, Field(ge=1, le=_MIB // 2, validation_alias=_env("ZEPHYR_BROADCAST_BYTES"))
    ] = 64 * 1024

    policy: str = ""
    auth_warning_s: Annotated[float, Field(ge=0, validation_alias=_env("ZEPHYR_AUTH_WARNING_S"))] = 60

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not (host and colon and port.isdigit() and int(port) < 65536):
            raise ValueError("write HOST:PORT, such as 127.0.0.1:7400; port 0 takes a free one")
        return value

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that a filter may name: those of the contract, and ZEPHYR_KINDS (comma separated)."""
        # What travels in the others is no entity: any message, or why there is none.
        known = {field.name for field in Event.DESCRIPTOR.oneofs_by_name["data"].fields}
        known -= {"other", "rejected"}
        extra = {kind.strip() for kind in self.extra_kinds.split(",") if kind.strip()}
        return frozenset(known | {kind for kind in extra if fmt.is_token(kind)})


def load_settings(**given: object) -> ServerSettings:
    """Settings from the environment; ``given`` goes before it where it is not None.

    Raises:
        SettingInvalid: a value is malformed; names the variable.
    """
    try:
        return ServerSettings(**{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    except ValidationError as exc:
        first = exc.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "?"
        variable = name if name.startswith("ZEPHYR_") else f"ZEPHYR_{name.upper()}"
        raise SettingInvalid(f"{variable}: {first['msg']}", "correct it in the environment") from exc
