"""Any cursor survives the way out and back; any other bytes are refused."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from realtime.cursor import Cursor, WalCursor, decode_token, text_to_bytes
from realtime.errors import CursorInvalid

UINT64 = st.integers(0, 2**64 - 1)
WAL_CURSORS = st.builds(WalCursor, UINT64.map(str), st.integers(0, 2**32 - 1), UINT64)
CURSORS = st.builds(Cursor, st.binary(min_size=10, max_size=10).map(bytes.hex), UINT64, UINT64)


@given(CURSORS)
def test_round_trip(cursor: Cursor) -> None:
    assert Cursor.decode(cursor.encode()) == cursor
    assert Cursor.decode(text_to_bytes(cursor.to_text())) == cursor


@given(WAL_CURSORS | CURSORS)
def test_either_form(token: Cursor | WalCursor) -> None:
    assert decode_token(token.encode()) == token
    assert decode_token(text_to_bytes(token.to_text())) == token


@given(WAL_CURSORS, st.integers(0, 24), st.integers(1, 255))
def test_no_changed_byte_of_a_wal_position_passes(token: WalCursor, at: int, change: int) -> None:
    data = bytearray(token.encode())
    data[at] ^= change
    with contextlib.suppress(CursorInvalid):
        raise AssertionError(decode_token(bytes(data)))


@given(WAL_CURSORS)
def test_a_wal_position_is_no_place_in_the_stream(token: WalCursor) -> None:
    with contextlib.suppress(CursorInvalid):
        raise AssertionError(Cursor.decode(token.encode()))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_token_or_refused(data: bytes) -> None:
    with contextlib.suppress(CursorInvalid):
        decode_token(data)


@given(CURSORS, st.integers(0, 32), st.integers(1, 255))
def test_no_changed_byte_passes(cursor: Cursor, at: int, change: int) -> None:
    data = bytearray(cursor.encode())
    data[at] ^= change
    with contextlib.suppress(CursorInvalid):
        raise AssertionError(Cursor.decode(bytes(data)))


@given(st.text(max_size=60))
def test_any_text_is_bytes_or_refused(text: str) -> None:
    with contextlib.suppress(CursorInvalid):
        Cursor.decode(text_to_bytes(text))
