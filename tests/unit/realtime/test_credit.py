"""How much may be sent: of events, of bytes, and of one event whatever its size."""

from __future__ import annotations

import pytest

from realtime.credit import Credit
from realtime.errors import ArgumentInvalid


def test_without_bounds_everything_may_be_sent() -> None:
    credit = Credit()
    assert credit.covers(10**9, 10**12, 1)
    credit.spend(10, 10)
    assert credit.is_open


def test_any_positive_credit_admits_one_event() -> None:
    credit = Credit(1, 1)
    assert credit.covers(1, 8 << 20, 8 << 20)
    assert not credit.covers(2, 2, 1)
    credit.spend(1, 8 << 20)
    assert not credit.is_open
    credit.grant(1, 1)
    assert not credit.is_open, "what was overdrawn is owed"
    credit.grant(0, 8 << 20)
    assert credit.is_open


@pytest.mark.parametrize(("messages", "size"), [(0, None), (None, 0), (0, 5), (5, 0)])
def test_zero_pauses(messages: int | None, size: int | None) -> None:
    credit = Credit(messages, size)
    assert not credit.is_open
    assert not credit.covers(1, 1, 1)


def test_negative_amounts_are_refused_and_change_nothing() -> None:
    credit = Credit(1, 1)
    with pytest.raises(ArgumentInvalid, match="negative"):
        credit.grant(5, -1)
    assert (credit.messages, credit.bytes) == (1, 1)


def test_what_has_no_bound_stays_so_and_huge_grants_do_not_grow_for_ever() -> None:
    credit = Credit(None, 1)
    credit.grant(5, 1 << 63)
    credit.grant(5, 1 << 63)
    assert credit.messages is None
    assert credit.bytes == 1 << 62
