"""The accounts tell loss, duplication and disorder exactly."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr.demo.expected import Account, Expected, ExpectedEvent, total


def listed(*sizes: int) -> Expected:
    expected = Expected()
    number = 0
    for size in sizes:
        expected.extend([event(index) for index in range(number, number + size)])
        number += size
    return expected


def event(index: int) -> ExpectedEvent:
    return ExpectedEvent("note", f"id-{index // 3}", "updated", index % 3 + 1)


def deliver(account: Account, index: int) -> None:
    one = event(index)
    account.receive(one.kind, one.entity_id, one.verb, one.version)


@given(
    size=st.integers(0, 200),
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 1),
    repeats=st.integers(0, 20),
    strangers=st.integers(0, 5),
    swaps=st.integers(0, 10),
)
def test_random_loss_duplication_and_reordering(
    size: int, seed: int, loss: float, repeats: int, strangers: int, swaps: int
) -> None:
    rng = random.Random(seed)
    arrivals = [index for index in range(size) if rng.random() >= loss]
    lost = size - len(arrivals)
    for _ in range(swaps if len(arrivals) > 1 else 0):
        one, other = rng.randrange(len(arrivals)), rng.randrange(len(arrivals))
        arrivals[one], arrivals[other] = arrivals[other], arrivals[one]
    for _ in range(repeats if arrivals else 0):
        arrivals.insert(rng.randrange(len(arrivals) + 1), rng.choice(arrivals))
    # By definition, and not as the account counts: a first arrival after a later event's first arrival.
    firsts = list(dict.fromkeys(arrivals))
    late = sum(index < max(firsts[:place], default=-1) for place, index in enumerate(firsts))

    account = Account(listed(size))
    for index in arrivals:
        deliver(account, index)
    for index in range(strangers):
        deliver(account, size + index)
    counts = total([account])
    assert (counts.lost, counts.out_of_order, counts.unexpected) == (lost, late, strangers)
    assert counts.duplicated == len(arrivals) - len(firsts) + strangers
    assert counts.delivered == len(arrivals) + strangers
    assert account.is_complete() == (lost == 0)


def test_all_is_well() -> None:
    account = Account(listed(3, 0, 4))
    for index in range(7):
        deliver(account, index)
    counts = total([account])
    assert (counts.delivered, counts.lost, counts.duplicated, counts.out_of_order) == (7, 0, 0, 0)


def test_what_differs_in_one_respect_is_not_expected() -> None:
    expected = listed(1)
    assert expected.find("note", "id-0", "updated", 1) == 0
    assert expected.find("user", "id-0", "updated", 1) is None
    assert expected.find("note", "id-1", "updated", 1) is None
    assert expected.find("note", "id-0", "created", 1) is None
    assert expected.find("note", "id-0", "updated", 2) is None


def test_the_same_event_cannot_be_expected_twice() -> None:
    with pytest.raises(ValueError, match="expected twice"):
        Expected().extend([event(0), event(0)])


@given(st.lists(st.integers(0, 4), max_size=30))
def test_commits_before_counts_whole_commits(sizes: list[int]) -> None:
    expected = listed(*sizes)
    for index in range(sum(sizes) + 1):
        whole = [number for number in range(len(sizes)) if sum(sizes[: number + 1]) <= index]
        assert expected.commits_before(index) == len(whole)
