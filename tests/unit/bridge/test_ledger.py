"""What may be confirmed, on a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.ledger import Ledger


def test_nothing_is_confirmed_before_the_hold_back_has_passed() -> None:
    ledger = Ledger(120)
    assert ledger.confirmable(0) == 0
    ledger.stored(100, 10)
    assert ledger.confirmable(129.999) == 0
    assert ledger.confirmable(130) == 100
    assert ledger.confirmable(131) == 100


def test_without_hold_back_all_that_is_stored_is_confirmed() -> None:
    ledger = Ledger(0)
    for lsn in range(1, 100):
        ledger.stored(lsn, 5)
        assert ledger.confirmable(5) == lsn


def test_what_is_stored_close_together_waits_for_the_youngest() -> None:
    ledger = Ledger(64)
    ledger.stored(1, 0)
    ledger.stored(2, 0.1)
    ledger.stored(3, 0.9)
    assert ledger.confirmable(64) == 1
    assert ledger.confirmable(64.5) == 1
    assert ledger.confirmable(64.9) == 3


def test_positions_never_go_back() -> None:
    ledger = Ledger(10)
    ledger.stored(5, 0)
    ledger.stored(5, 1)
    assert len(ledger) == 1
    with pytest.raises(ValueError, match="stored after"):
        ledger.stored(4, 2)
    assert ledger.confirmable(20) == 5
    with pytest.raises(ValueError, match="stored after"):
        ledger.stored(4, 21)


def test_how_much_is_held_back() -> None:
    ledger = Ledger(10)
    ledger.stored(100, 0)
    assert ledger.held_back == 0
    ledger.confirmable(10)
    ledger.stored(170, 11)
    assert ledger.held_back == 70


def test_for_how_long_it_is_held_back() -> None:
    ledger = Ledger(10)
    assert ledger.held_for_s(5) == 0
    ledger.stored(100, 5)
    ledger.stored(200, 8)
    assert ledger.held_for_s(9) == 4
    ledger.confirmable(15)
    assert ledger.held_for_s(15) == 7
    ledger.confirmable(18)
    assert ledger.held_for_s(30) == 0


@pytest.mark.parametrize("hold_back", [0, 1, 120])
@pytest.mark.parametrize("step", [0, 0.001, 0.9, 5])
def test_its_length_is_bounded_even_if_nobody_confirms(hold_back: float, step: float) -> None:
    ledger = Ledger(hold_back)
    for number in range(5000):
        ledger.stored(number + 1, number * step)
    assert len(ledger) <= 2 * 64 + 2


STEPS = st.lists(st.tuples(st.floats(0, 30), st.integers(0, 100), st.booleans()), max_size=300)


@given(STEPS, st.sampled_from((0.0, 0.5, 10.0, 120.0)))
def test_never_early_never_backwards_and_at_last(steps: list[tuple[float, int, bool]], hold: float) -> None:
    ledger, now, lsn, confirmed = Ledger(hold), 0.0, 1, 0
    stored: list[tuple[float, int]] = []
    for wait, growth, asks in steps:
        now += wait
        lsn += growth
        ledger.stored(lsn, now)
        if not stored or stored[-1][1] < lsn:
            stored.append((now, lsn))
        if asks:
            given_out = ledger.confirmable(now)
            allowed = max((held for at, held in stored if now - at >= hold), default=0)
            assert confirmed <= given_out <= allowed
            confirmed = given_out
        assert len(ledger) <= 2 * 64 + 2
    if stored:
        assert ledger.confirmable(now + hold + 1) == stored[-1][1]
