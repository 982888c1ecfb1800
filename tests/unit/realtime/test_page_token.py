"""A page token: read back as it was written, and with its own question alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.cursor import Cursor
from realtime.errors import ArgumentInvalid
from realtime.page_token import PageToken

EPOCH = "0190a0000000000000aa"
NUMBER = st.integers(0, 2**64 - 1)
CURSOR = st.builds(Cursor, st.just(EPOCH), NUMBER, NUMBER)


@given(CURSOR, CURSOR, st.binary(max_size=50))
def test_round_trip(after: Cursor, end: Cursor, question: bytes) -> None:
    token = PageToken(after, end)
    assert PageToken.decode(token.encode(question), question) == token
    with pytest.raises(ArgumentInvalid, match="another list"):
        PageToken.decode(token.encode(question), question + b"x")


@given(st.text(max_size=120))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ArgumentInvalid, match="page_token"):
        PageToken.decode(text, b"")


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    text = PageToken(Cursor(EPOCH, 7, 70), Cursor(EPOCH, 9, 90)).encode(b"q")
    at = data.draw(st.integers(0, len(text) - 2))  # of the last letter not all bits count
    letter = data.draw(st.sampled_from("abcXYZ019-_").filter(lambda letter: letter != text[at]))
    with pytest.raises(ArgumentInvalid, match="changed or cut"):
        PageToken.decode(text[:at] + letter + text[at + 1 :], b"q")
