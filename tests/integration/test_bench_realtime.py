"""``zephyr bench`` of what the server does: a tiny run of each. The form and the counts are held, no speed is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.program import running
from bench.serving import WORKSPACE
from bench.skim import CAUGHT_UP, EVENTS, skim
from bench.writer import EVENT_BYTES, Spec, message
from protos.events.v1 import stream_format as fmt
from protos.events.v1 import stream_pb2 as pb
from protos.events.v1.event_pb2 import Event
from tests.integration.test_bench import CASE_KEYS, bench

pytestmark = pytest.mark.timeout(300)


def check_form(result: dict[str, Any], name: str, *processes: set[str]) -> list[dict[str, Any]]:
    assert result["bench"] == name
    for case in result["cases"]:
        assert case.keys() <= CASE_KEYS
        assert case["value"] > 0
        assert case["cpu_seconds"].keys() == case["peak_memory_bytes"].keys()
        assert case["cpu_seconds"].keys() in processes
        assert all(size > 0 for size in case["peak_memory_bytes"].values())
    return list(result["cases"])


def check_ratio(case: dict[str, Any]) -> None:
    low, high = case["ratio_spread"]
    assert 0 < low <= case["ratio"] <= high
    assert case["ceiling"] > 0


async def test_fan_out_is_measured_beside_a_bare_handler_and_a_bare_relay(tmp_path: Path) -> None:
    code, err, result = await bench(
        tmp_path, "fanout", "--subscribers", "3", "--deliveries", "600", "--window", "50", "--rounds", "1"
    )
    assert code == 0, err
    cases = check_form(result, "fanout", {"server", "nats", "writer", "client"})
    assert [(case["parameters"]["client"], case["parameters"]["beside"]) for case in cases] == [
        (client, beside) for client in ("skim", "typed") for beside in ("bare handler", "bare relay")
    ]
    assert ["relay_cpu_seconds" in case["parameters"] for case in cases] == [False, True] * 2
    for case in cases:
        assert case["unit"] == "deliveries/s"
        assert case["parameters"]["subscribers"] == 3
        assert case["parameters"]["event_bytes"] == 200
        assert case["parameters"]["events"] == [600]
        assert case["parameters"]["fell_behind"] == 0
        check_ratio(case)


async def test_a_catch_up_is_measured_beside_its_ceilings_and_by_what_others_feel(tmp_path: Path) -> None:
    words = (
        "--events",
        "1500",
        "--live-subscribers",
        "2",
        "--live-per-second",
        "20",
        "--live-seconds",
        "0.5",
    )
    code, err, result = await bench(tmp_path, "catchup", *words, "--rounds", "1")
    assert code == 0, err
    past, live = {"server", "nats", "client"}, {"server", "nats"}
    *how_fast, felt = check_form(result, "catchup", past, live)
    assert [case["parameters"]["beside"] for case in how_fast] == ["raw consumer", "bare handler"]
    for case in how_fast:
        assert case["unit"] == "events/s"
        assert case["parameters"]["events"] == [1500]
        check_ratio(case)
    assert felt["parameters"]["deliveries"] == [20]
    assert felt["parameters"]["catch_ups"][0] >= 1
    assert felt["parameters"]["catch_up_events_per_second"][0] >= 0
    for name in ("without_ms", "elsewhere_ms"):
        assert 0 < felt["parameters"][name]["p50"] <= felt["parameters"][name]["p99"]
    assert 0 < felt["latency_ms"]["p50"] <= felt["latency_ms"]["p99"]
    check_ratio(felt)


async def test_idle_streams_are_weighed_beside_bare_ones_and_come_back(tmp_path: Path) -> None:
    words = ("--streams", "20", "--streams-per-connection", "10", "--processes", "2", "--rounds", "1")
    code, err, result = await bench(tmp_path, "idle", *words)
    assert code == 0, err
    memory, back = check_form(result, "idle", {"server", "nats", "client 1", "client 2"})
    assert memory["unit"] == "bytes a stream"
    check_ratio(memory)
    assert back["parameters"]["events"] == [100]
    assert back["parameters"]["seconds_since_start"] > back["parameters"]["seconds_since_serving"]


async def test_matching_is_measured_beside_subscriptions_that_do_not_match(tmp_path: Path) -> None:
    words = ("--subscriptions", "3", "--subscriptions", "150", "--events", "200", "--quiet-s", "0.3")
    code, err, result = await bench(tmp_path, "match", *words, "--rounds", "1")
    assert code == 0, err
    few, many = check_form(result, "match", {"server", "client"})
    assert [each["parameters"]["subscriptions"] for each in (few, many)] == [3, 150]
    assert [each["parameters"]["events"] for each in (few, many)] == [[200], [200]]
    assert "ceiling" not in few
    check_ratio(many)


async def test_latency_is_measured_from_commit_to_handler(tmp_path: Path) -> None:
    words = ("--idle-per-second", "20", "--rate", "40", "--seconds", "0.5")
    code, err, result = await bench(tmp_path, "latency", *words)
    assert code == 0, err
    idle, loaded = check_form(result, "latency", {"bridge", "nats", "postgres", "server", "client"})
    assert [each["parameters"]["case"] for each in (idle, loaded)] == ["idle", "loaded"]
    for case, rate in ((idle, 20), (loaded, 40)):
        assert case["parameters"]["transactions_per_second"] == rate
        assert case["parameters"]["events"][0] >= rate
        found = case["latency_ms"]
        assert 0 < found["p50"] <= found["p99"] <= found["max"]


async def test_streams_that_need_too_many_files_are_refused_with_the_mend(tmp_path: Path) -> None:
    words = ("--streams", "100000000", "--streams-per-connection", "1")
    code, err, result = await bench(tmp_path, "idle", *words)
    assert (code, result) == (1, {})
    assert "open files are needed" in err
    assert "ulimit" in err


def frame(after: int, through: int, *, events: int, matched: int) -> bytes:
    response = pb.SubscribeResponse(subscription_id="s0")
    response.coverage.after, response.coverage.through, response.coverage.matched = after, through, matched
    response.events.SetInParent()
    for number in range(events):
        response.events.events.add(sequence=after + 1 + number)
    return response.SerializeToString()


async def test_a_client_says_what_did_not_join_and_what_was_not_there(tmp_path: Path) -> None:
    at_edge = pb.SubscribeResponse(subscription_id="s0", caught_up=pb.CaughtUp())
    frames = [
        at_edge.SerializeToString(),
        frame(0, 2, events=2, matched=2),
        frame(3, 5, events=2, matched=2),
        frame(5, 8, events=2, matched=3),
    ]
    file = tmp_path / "frames"
    file.write_bytes(b"".join(len(each).to_bytes(4, "big") + each for each in frames))
    served = {"frames": str(file), "greeting": 1, "streams": 1}
    async with running("bench.handler", served, tmp_path / "handler.log") as handler:
        asked = {"target": f"127.0.0.1:{await handler.heard('port')}"}
        async with running("bench.client", asked, tmp_path / "client.log") as client:
            await client.heard("ready")
            client.tell({"until": 8})
            found = await client.heard("done")
    assert found["broken"] == ["after 2 came a frame after 3", "a frame says 3 events and has 2"]
    assert (found["events"], found["fewest"], found["most"]) == (6, 6, 6)


async def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    spec = {"target": "127.0.0.1:9"}
    async with running("bench.client", spec, tmp_path / "client.log") as client:
        with pytest.raises(BenchError, match="a stream failed: UNAVAILABLE"):
            await client.heard("ready")


def test_an_event_of_the_writer_has_its_size_and_the_streams_format() -> None:
    spec = Spec("127.0.0.1", 4222, "019aa2b3c4d5deadbeef", WORKSPACE, stored=0, events=2)
    before, after = message(spec, 1, 1_764_000_000_000_000)
    command, _, rest = (before + after).partition(b"\r\n")
    _, subject, headers, total = command.split()
    payload = rest[int(headers) : int(total)]
    event = Event.FromString(payload)
    assert len(payload) == EVENT_BYTES
    place = fmt.Subject(WORKSPACE, "note", event.subject)
    assert fmt.parse_subject(subject.decode()) == place
    assert f"{fmt.ID}: {event.id}\r\n".encode() in rest[: int(headers)]
    assert event.note.id == event.subject


def test_a_frame_is_skimmed_as_it_is_parsed() -> None:
    frame = pb.SubscribeResponse(subscription_id="s0", cursor=b"here")
    frame.coverage.after, frame.coverage.through, frame.coverage.matched = 300, 1 << 40, 8
    for size in (1, 1, 200, 200, 201, 200, 70_000, 70_000):
        event = frame.events.events.add(sequence=300 + size, cursor=b"c")
        event.event.note.body = "x" * size
    frame.events.transaction_open = True
    seen = skim(frame.SerializeToString())
    assert seen == (b"s0", b"here", 300, 1 << 40, 8, EVENTS, 8)
    other = pb.SubscribeResponse(subscription_id="s0", caught_up=pb.CaughtUp())
    assert skim(other.SerializeToString()).kind == CAUGHT_UP
