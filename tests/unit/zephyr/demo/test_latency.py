"""Percentiles are right to one per cent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr.demo.latency import Latencies


@given(st.lists(st.integers(1, 10_000_000_000), min_size=1, max_size=300), st.sampled_from([1, 50, 99, 100]))
def test_percentiles(values: list[int], percent: int) -> None:
    latencies = Latencies()
    for value in values:
        latencies.record(value)
    rank = -(-len(values) * percent // 100)
    assert latencies.percentile_ms(percent) == pytest.approx(sorted(values)[rank - 1] / 1000, rel=0.011)


def test_nothing_recorded_and_clocks_that_disagree() -> None:
    latencies = Latencies()
    assert latencies.percentile_ms(50) == 0
    latencies.record(-5)
    latencies.record(10**18)
    assert latencies.count == 2
    assert latencies.percentile_ms(50) < 0.002
