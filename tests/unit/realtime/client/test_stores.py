"""Where cursors are kept, and how often they are saved."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from realtime.client.keeper import CursorKeeper
from realtime.client.stores import FileCursorStore, MemoryCursorStore
from realtime.cursor import Cursor
from realtime.errors import ArgumentInvalid, CursorInvalid, StoreUnavailable
from tests.fixtures.eventually import eventually

EPOCH = "0190a0000000000000aa"


def cursor(sequence: int) -> bytes:
    return Cursor(EPOCH, sequence, 1).encode()


async def test_a_file_for_each_name(tmp_path: Path) -> None:
    store = FileCursorStore(tmp_path / "cursors")
    assert await store.load("a") is None
    await store.save("a", cursor(1))
    await store.save("b", cursor(2))
    await store.save("a", cursor(3))
    again = FileCursorStore(tmp_path / "cursors")
    assert [await again.load(name) for name in ("a", "b", "c")] == [cursor(3), cursor(2), None]
    assert sorted(path.name for path in store.folder.iterdir()) == ["a.cursor", "b.cursor"]
    assert (store.folder / "a.cursor").read_text() == Cursor.decode(cursor(3)).to_text() + "\n"


async def test_the_newest_of_many_stays(tmp_path: Path) -> None:
    store = FileCursorStore(tmp_path)
    for number in range(1, 30):
        saving = asyncio.ensure_future(store.save("a", cursor(number)))
        await asyncio.sleep(0)
        saving.cancel()  # its thread goes on
    await store.save("a", cursor(100))
    await asyncio.to_thread(lambda: None)
    assert await store.load("a") == cursor(100)


async def test_a_file_that_is_no_cursor(tmp_path: Path) -> None:
    (tmp_path / "a.cursor").write_text("something else")
    with pytest.raises(CursorInvalid, match=r"a\.cursor") as caught:
        await FileCursorStore(tmp_path).load("a")
    assert "delete it" in caught.value.mend


async def test_a_file_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be saved"):
        await FileCursorStore(tmp_path / "file").save("a", cursor(1))
    (tmp_path / "a.cursor").mkdir()
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await FileCursorStore(tmp_path).load("a")
    for name in ("", "../a", "a/b", ".a"):
        with pytest.raises(ArgumentInvalid, match="cannot be a file's name"):
            await FileCursorStore(tmp_path).load(name)


class _Counting(MemoryCursorStore):
    def __init__(self) -> None:
        super().__init__()
        self.saved: list[bytes] = []

    async def save(self, name: str, cursor: bytes) -> None:
        self.saved.append(cursor)
        await super().save(name, cursor)


async def test_it_is_saved_at_most_so_often_and_before_waiting() -> None:
    store = _Counting()
    keeper = CursorKeeper(store, "a", 0.2)
    assert await keeper.load() == b""
    for number in range(1, 1000):
        await keeper.handled(cursor(number))
    assert store.saved == [cursor(1)]
    await keeper.save()
    await keeper.save()
    assert store.saved == [cursor(1), cursor(999)]
    await keeper.handled(b"")
    due_at = asyncio.get_running_loop().time() + 0.2
    await eventually(lambda: asyncio.get_running_loop().time() > due_at)
    await keeper.handled(cursor(1001))
    assert store.saved[2:] == [cursor(1001)]
    assert await CursorKeeper(store, "a", 1).load() == cursor(1001)
