"""The stream's settings: what is made is what is accepted, and nothing else is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bridge.errors import StreamUnfit
from bridge.settings import BridgeSettings, load_settings
from bridge.stream import fit_stream, new_epoch, stream_config

SETTINGS = load_settings(stream_max_msgs=100, stream_max_age_s=1.5)


def info(settings: BridgeSettings = SETTINGS, **changes: Any) -> dict[str, Any]:
    config = stream_config(settings, "0190a0000000000000aa") | changes
    return {"config": config, "state": {"first_seq": 3, "last_seq": 9}}


def test_what_is_made_fits() -> None:
    state = fit_stream(info(), SETTINGS)
    assert (state.epoch, state.first_sequence, state.last_sequence) == ("0190a0000000000000aa", 3, 9)
    # No limit is 0 here and -1 there.
    assert (state.max_age_s, state.max_bytes, state.max_msgs) == (1.5, 0, 100)


@pytest.mark.parametrize(
    "changes",
    [
        {"subjects": ["zephyr.0.>"]},
        {"retention": "workqueue"},
        {"discard": "new"},
        {"storage": "memory"},
        {"max_age": 0},
        {"max_msgs": -1},
        {"max_bytes": 5},
        {"max_msgs_per_subject": 1},
        {"max_msg_size": 1000},
        {"allow_direct": False},
        {"num_replicas": 3},
        {"sealed": True},
        {"no_ack": True},
        {"mirror": {"name": "X"}},
        {"republish": {"src": ">", "dest": "x.>"}},
        {"subject_transform": {"src": ">", "dest": "x.>"}},
    ],
)
def test_each_difference_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises(StreamUnfit, match=next(iter(changes))):
        fit_stream(info(**changes), SETTINGS)


def test_all_differences_are_named_at_once() -> None:
    with pytest.raises(StreamUnfit) as refused:
        fit_stream(info(max_msgs=5, storage="memory"), SETTINGS)
    assert "max_msgs is 5, wanted 100" in refused.value.message
    assert "storage is 'memory', wanted 'file'" in refused.value.message


def test_a_stream_of_another_maker_or_format() -> None:
    for metadata in (None, {}, {"zephyr-format": "1"}):
        with pytest.raises(StreamUnfit, match="not made by Zephyr"):
            fit_stream(info(metadata=metadata), SETTINGS)
    with pytest.raises(StreamUnfit, match="has format 2, this is format 1"):
        fit_stream(info(metadata={"zephyr-epoch": "a", "zephyr-format": "2"}), SETTINGS)


def test_epochs() -> None:
    epochs = [new_epoch() for _ in range(100)]
    assert len(set(epochs)) == 100
    assert all(re.fullmatch("[0-9a-f]{20}", epoch) for epoch in epochs)
    assert [epoch[:12] for epoch in epochs] == sorted(epoch[:12] for epoch in epochs)
