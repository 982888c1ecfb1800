"""``zephyr bench publish``: a tiny run. The form and the counts are held, no speed is."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.ceiling import source_of
from bench.new_event import new_event, subject
from bench.publisher import number_at
from protos.events.v1 import stream_format as fmt
from protos.wire import varint
from tests.integration.test_bench import bench
from tests.integration.test_bench_realtime import check_form, check_ratio

pytestmark = pytest.mark.timeout(120)
W = "11111111-1111-4111-8111-111111111111"


async def test_publishing_is_measured_beside_a_peer_and_the_brokers_ceiling(tmp_path: Path) -> None:
    words = (
        "--events",
        "3000",
        "--in-flight",
        "500",
        "--calls",
        "20",
        "--rounds",
        "1",
        "--listeners",
        "7",
        "--broadcasts",
        "5",
        "--broadcasts-per-second",
        "20",
    )
    code, err, result = await bench(tmp_path, "publish", *words)
    assert code == 0, err
    *streams, single, broadcast = check_form(result, "publish", {"server", "nats", "client"})
    told = [(case["parameters"]["client"], case["parameters"]["beside"]) for case in streams]
    assert told == [
        ("skim", "nats-py publish_async"),
        ("skim", "raw socket"),
        ("typed", "nats-py publish_async"),
        ("typed", "raw socket"),
    ]
    for case in streams:
        assert case["unit"] == "events/s"
        assert case["parameters"]["events"] == [3000]
        assert case["parameters"]["event_bytes"] == 250
        assert case["parameters"]["in_flight"] == 500
        assert case["parameters"]["cpu_us_an_event"].keys() == {"server", "nats", "client"}
        check_ratio(case)
    assert single["parameters"]["events"] == [20]
    assert 0 < single["latency_ms"]["p50"] <= single["latency_ms"]["p99"]
    check_ratio(single)
    assert broadcast["parameters"]["events"] == [35]
    assert broadcast["parameters"]["dropped"] == 0
    assert 0 < broadcast["latency_ms"]["p50"] <= broadcast["latency_ms"]["p99"]


@pytest.mark.parametrize("size", [200, 250, 1000, 20_000])
def test_an_event_has_its_size_and_its_subject(size: int) -> None:
    event = new_event(W, 1001, size)
    assert event.ByteSize() == size
    place = fmt.parse_subject(subject(W, 1001))
    assert place is not None
    assert str(place).endswith(f"{event.entity_id}.event")


def test_numbers_are_read_as_they_are_written() -> None:
    for value in (0, 1, 127, 128, 300, 1 << 40, (1 << 64) - 1):
        assert number_at(varint(value), 0) == (value, len(varint(value)))


def test_the_ceiling_is_short_enough_to_print() -> None:
    assert len(source_of("publish").splitlines()) < 100
