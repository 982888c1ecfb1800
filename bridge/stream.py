"""The stream itself: made once, with an epoch, and never bent to other settings in silence."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import Any

from bridge.errors import StreamUnfit
from bridge.jetstream import STORE_BUSY, STREAM_NOT_FOUND, JetStream, JetStreamError
from bridge.settings import BridgeSettings
from protos.events.v1 import stream_format as fmt

# A stream of the same name was removed a moment ago, and the broker is still at its files.
_STORE_BUSY_PAUSES_S = (0.1, 0.3, 1.0)


@dataclass(frozen=True, slots=True)
class StreamState:
    """The stream as the broker holds it. Limits of 0 mean none."""

    epoch: str
    first_sequence: int
    last_sequence: int
    max_age_s: float
    max_bytes: int
    max_msgs: int
    allows_runs: bool = False


def new_epoch() -> str:
    """A new identity: 20 hexadecimal digits, milliseconds and chance, so that epochs sort by time."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(4)}"


async def read_stream(jetstream: JetStream) -> dict[str, Any] | None:
    """STREAM.INFO, or None when there is no stream of that name."""
    try:
        return await jetstream.api(f"STREAM.INFO.{jetstream.stream}")
    except JetStreamError as exc:
        if exc.error_code == STREAM_NOT_FOUND:
            return None
        raise


def epoch_after(former: str) -> str:
    """A new epoch that sorts after another one, whatever the clocks said."""
    epoch = new_epoch()
    if epoch > former:
        return epoch
    return f"{int(former[:12], 16) + 1:012x}{epoch[12:]}"


async def create_stream(jetstream: JetStream, settings: BridgeSettings, epoch: str) -> StreamState:
    """Makes the stream.

    Raises:
        StreamUnfit: the broker refused, for example since another stream has its subjects.
    """
    config = stream_config(settings, epoch)
    if jetstream.supports_runs:
        config["allow_batched"] = True
    pauses = iter(_STORE_BUSY_PAUSES_S)
    while True:
        try:
            info = await jetstream.api(f"STREAM.CREATE.{settings.stream}", config)
            return fit_stream(info, settings)
        except JetStreamError as exc:
            pause_s = next(pauses, None) if exc.error_code == STORE_BUSY else None
            if pause_s is None:
                raise StreamUnfit(
                    f"the stream {settings.stream!r} cannot be made: {exc.message}",
                    "free the subjects zephyr.> or raise the broker's limits",
                ) from exc
        await asyncio.sleep(pause_s)


def stream_config(settings: BridgeSettings, epoch: str) -> dict[str, Any]:
    """The stream's configuration in the API's JSON."""
    return {
        "name": settings.stream,
        "description": "Zephyr: committed changes and domain events",
        "subjects": [fmt.SUBJECTS],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": settings.stream_replicas,
        "max_age": int(settings.stream_max_age_s * 1e9),
        "max_bytes": settings.stream_max_bytes or -1,
        "max_msgs": settings.stream_max_msgs or -1,
        "max_msgs_per_subject": -1,
        # The bridge's own limit is checked before; a lower one here would refuse an event for ever.
        "max_msg_size": -1,
        "allow_direct": True,
        "allow_atomic": True,
        "metadata": {fmt.EPOCH_KEY: epoch, fmt.FORMAT_KEY: fmt.FORMAT},
    }


def fit_stream(info: dict[str, Any], settings: BridgeSettings) -> StreamState:
    """Holds what the broker says against what is wanted.

    Raises:
        StreamUnfit: some setting differs; names all of them.
    """
    config = info["config"]
    metadata = config.get("metadata") or {}
    epoch = metadata.get(fmt.EPOCH_KEY)
    if epoch is None:
        raise StreamUnfit(
            f"the stream {settings.stream!r} exists and was not made by Zephyr",
            "name another with ZEPHYR_STREAM, or remove it",
        )
    if metadata.get(fmt.FORMAT_KEY) != fmt.FORMAT:
        raise StreamUnfit(
            f"the stream {settings.stream!r} has format {metadata.get(fmt.FORMAT_KEY)}, this is format {fmt.FORMAT}",
            "use the version of Zephyr that made it",
        )
    wanted = stream_config(settings, epoch)
    differences = [
        f"{key} is {config.get(key)!r}, wanted {wanted[key]!r}"
        for key in wanted
        if key not in ("description", "metadata") and config.get(key) != wanted[key]
    ]
    for forbidden in (
        "mirror",
        "sources",
        "subject_transform",
        "republish",
        "no_ack",
        "sealed",
        "discard_new_per_subject",
    ):
        if config.get(forbidden):
            differences.append(f"{forbidden} is set")  # noqa: PERF401
    if differences:
        raise StreamUnfit(
            f"the stream {settings.stream!r} exists with other settings: {'; '.join(differences)}",
            "set ZEPHYR_STREAM_… to what it has, or change it with: nats stream edit",
        )
    state = info["state"]
    return StreamState(
        str(epoch),
        int(state["first_seq"]),
        int(state["last_seq"]),
        config["max_age"] / 1e9,
        max(0, config["max_bytes"]),
        max(0, config["max_msgs"]),
        bool(config.get("allow_batched")),
    )
