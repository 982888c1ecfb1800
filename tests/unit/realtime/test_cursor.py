"""Cursors: what they hold, and that a changed one is never taken for another."""

from __future__ import annotations

import pytest

from realtime.cursor import Cursor, text_to_bytes
from realtime.errors import CursorInvalid

CURSOR = Cursor("0190a0000000000000aa", 2**40 + 7, 1_700_000_000_123_456_789)


def test_it_comes_back_as_it_was() -> None:
    assert Cursor.decode(CURSOR.encode()) == CURSOR
    assert text_to_bytes(CURSOR.to_text()) == CURSOR.encode()
    assert len(CURSOR.encode()) == 33


@pytest.mark.parametrize("at", range(33))
def test_a_change_of_any_byte_is_noticed(at: int) -> None:
    good = CURSOR.encode()
    for change in (1, 0x80, 0xFF):
        with pytest.raises(CursorInvalid) as caught:
            Cursor.decode(good[:at] + bytes([good[at] ^ change]) + good[at + 1 :])
        assert caught.value.mend


@pytest.mark.parametrize("length", [0, 1, 32])
def test_a_cut_one_is_noticed(length: int) -> None:
    with pytest.raises(CursorInvalid, match=f"has 33 bytes, this has {length}"):
        Cursor.decode(CURSOR.encode()[:length])


@pytest.mark.parametrize("text", ["%%%", "a", "ü", "a b c d", "=" * 4 + "x"])
def test_text_that_is_no_base64(text: str) -> None:
    with pytest.raises(CursorInvalid):
        Cursor.decode(text_to_bytes(text))
