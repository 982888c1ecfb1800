"""Spans that grow to a bound, and anywhere within them."""

from __future__ import annotations

from realtime.client.backoff import Backoff


def test_spans_double_up_to_the_cap_and_begin_anew() -> None:
    backoff = Backoff(0.1, 1.0, uniform=lambda least, most: most)
    assert [backoff.next_s() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next_s() == 0.1


def test_the_jitter_is_full() -> None:
    backoff = Backoff(1.0, 1.0)
    pauses = [backoff.next_s() for _ in range(1000)]
    assert min(pauses) < 0.1
    assert max(pauses) > 0.9
    assert all(0 <= pause <= 1 for pause in pauses)
