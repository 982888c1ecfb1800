"""The bridge's settings: read once from the environment, checked, and passed down."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge.errors import SettingInvalid
from protos.events.v1 import stream_format as fmt

_MIB = 1024 * 1024
_MAX_AGE_S = 9e9
"""What 64 bits of nanoseconds hold."""
_SLOT_NAME = re.compile(r"[a-z0-9_]{1,63}\Z")
_STREAM_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")


def _env(name: str) -> AliasChoices:
    return AliasChoices(name.removeprefix("ZEPHYR_").lower(), name)


class BridgeSettings(BaseSettings):
    """Where the servers are and what the stream is like.

    Limits of 0 mean none. ``hold_back_s`` is how long the slot is held back behind what the
    broker acknowledged: at least the broker's sync interval, whose default is two minutes;
    0 is right with ``sync_interval: always`` or three replicas. ``snapshot`` says whether an epoch
    begins with a copy of the tables.
    """

    model_config = SettingsConfigDict(env_prefix="ZEPHYR_", populate_by_name=True, extra="ignore")

    nats_url: str = "nats://127.0.0.1:4222"
    postgres_dsn: str = "postgresql://postgres@127.0.0.1:5432/postgres"
    mapping: Path | None = None
    stream: str = "ZEPHYR"
    slot: str = "zephyr"
    publication: str = "zephyr"

    extra_kinds: Annotated[str, Field(validation_alias=_env("ZEPHYR_KINDS"))] = ""

    stream_max_age_s: Annotated[float, Field(ge=0, le=_MAX_AGE_S)] = 0
    stream_max_bytes: Annotated[int, Field(ge=0)] = 0
    stream_max_msgs: Annotated[int, Field(ge=0)] = 0
    stream_replicas: Annotated[int, Field(ge=1, le=5)] = 1

    snapshot: Literal["initial", "never"] = "initial"
    snapshot_workers: Annotated[int, Field(ge=1, le=32)] = 2
    snapshot_max_rows_per_s: Annotated[int, Field(ge=0)] = 0
    on_epoch_lost: Annotated[
        Literal["stop", "renew"], Field(validation_alias=_env("ZEPHYR_BRIDGE_ON_EPOCH_LOST"))
    ] = "stop"

    max_event_bytes: Annotated[
        int,
        Field(
            ge=1024,
            le=64 * _MIB,
            validate_default=True,
            validation_alias=_env("ZEPHYR_BRIDGE_MAX_EVENT_BYTES"),
        ),
    ] = 8 * _MIB
    hold_back_s: Annotated[float, Field(ge=0, validation_alias=_env("ZEPHYR_BRIDGE_HOLD_BACK_S"))] = 120
    lock_wait_s: Annotated[float, Field(ge=0, validation_alias=_env("ZEPHYR_BRIDGE_LOCK_WAIT_S"))] = 10
    mark_interval_s: Annotated[
        float, Field(gt=0, le=60, validation_alias=_env("ZEPHYR_BRIDGE_MARK_INTERVAL_S"))
    ] = 2
    publish_timeout_s: Annotated[
        float, Field(gt=0, le=600, validation_alias=_env("ZEPHYR_BRIDGE_PUBLISH_TIMEOUT_S"))
    ] = 5
    on_poison: Annotated[
        Literal["dead-letter", "stop"], Field(validation_alias=_env("ZEPHYR_BRIDGE_ON_POISON"))
    ] = "dead-letter"
    on_schema_change: Annotated[
        Literal["pause", "dead-letter"], Field(validation_alias=_env("ZEPHYR_BRIDGE_ON_SCHEMA_CHANGE"))
    ] = "pause"

    cloudevents: Literal["on", "off"] = "off"

    heartbeat_s: Annotated[
        float, Field(ge=0, le=3600, validation_alias=_env("ZEPHYR_BRIDGE_HEARTBEAT_S"))
    ] = 10
    held_wal_warn_bytes: Annotated[
        int | None, Field(ge=0, validation_alias=_env("ZEPHYR_BRIDGE_HELD_WAL_WARN_BYTES"))
    ] = None
    standby: Annotated[bool, Field(validation_alias=_env("ZEPHYR_BRIDGE_STANDBY"))] = False

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds that a domain event may have beside those of the mapping: ZEPHYR_KINDS, comma separated."""
        given = {kind.strip() for kind in self.extra_kinds.split(",")}
        return frozenset(kind for kind in given if fmt.is_token(kind))

    @field_validator("slot", "publication")
    @classmethod
    def _is_slot_name(cls, value: str) -> str:
        if not _SLOT_NAME.match(value):
            raise ValueError("use 1 to 63 lower-case letters, digits and underscores")
        return value

    @field_validator("stream")
    @classmethod
    def _is_stream_name(cls, value: str) -> str:
        if not _STREAM_NAME.match(value):
            raise ValueError("use letters, digits, - and _")
        return value

    @field_validator("max_event_bytes")
    @classmethod
    def _leaves_the_marks(cls, value: int, info: ValidationInfo) -> int:
        # The broker acknowledges an event over its limit, and then evicts all it has, this event too.
        limit = info.data.get("stream_max_bytes")
        if limit and value > limit // 2:
            raise ValueError("an event must not have more than half of ZEPHYR_STREAM_MAX_BYTES")
        return value

    @field_validator("stream_max_msgs")
    @classmethod
    def _holds_the_marks(cls, value: int) -> int:
        if 0 < value < 8:
            raise ValueError(
                "the stream must hold at least 8 messages, so that the bridge's marks stay in it"
            )
        return value


def load_settings(**given: object) -> BridgeSettings:
    """Settings from the environment; ``given`` goes before it where it is not None.

    Raises:
        SettingInvalid: a value is malformed; names the variable.
    """
    try:
        return BridgeSettings(**{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    except ValidationError as exc:
        first = exc.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "?"
        raise SettingInvalid(f"{_variable(name)}: {first['msg']}", "correct it in the environment") from exc


def _variable(name: str) -> str:
    """The variable of a setting that is named by its field or by one of its aliases."""
    field = BridgeSettings.model_fields.get(name)
    alias = field.validation_alias if field is not None else None
    if isinstance(alias, AliasChoices):
        return str(alias.choices[-1])
    return name if name.startswith("ZEPHYR_") else f"ZEPHYR_{name.upper()}"
