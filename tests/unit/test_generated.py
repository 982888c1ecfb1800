"""The committed Python of the contracts is what they generate, and a difference is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import protos


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh")
    protos.compile_protos(folder)
    return folder


def test_the_committed_code_is_fresh(fresh: Path) -> None:
    assert protos.differences(fresh, protos.ROOT) == {}


def test_only_files_with_a_service_get_grpc_code(fresh: Path) -> None:
    made = {path.name for path in fresh.rglob("*_pb2_grpc.py")}
    assert made == {"publish_pb2_grpc.py", "read_pb2_grpc.py", "stream_pb2_grpc.py"}


def test_every_kind_of_difference_is_named(fresh: Path, tmp_path: Path) -> None:
    package = tmp_path / "protos/events/v1"
    package.mkdir(parents=True)
    for path in (fresh / "protos/events/v1").iterdir():
        (package / path.name).write_bytes(path.read_bytes())
    (package / "mark_pb2.py").unlink()
    (package / "event_pb2.pyi").write_text("# by hand\n", "utf-8")
    (package / "gone_pb2.py").write_text("", "utf-8")

    found = {
        name: what
        for name, what in protos.differences(fresh, tmp_path).items()
        if name.startswith("protos/events")
    }

    assert found == {
        "protos/events/v1/event_pb2.pyi": "stale",
        "protos/events/v1/gone_pb2.py": "left over, no proto makes it",
        "protos/events/v1/mark_pb2.py": "missing",
    }
