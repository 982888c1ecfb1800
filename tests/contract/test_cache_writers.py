"""Two projectors that write one history at the same time, held against every cache."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime.cache import Cached
from realtime.cursor import Cursor
from tests.contract.cache_history import HistoryWriter, at, expected_of
from tests.fixtures.cache_kit import CacheKit

IDS = ("a", "b", "c")
EVENT = st.tuples(st.sampled_from(["put", "put", "delete", "forget", "clear", "none"]), st.sampled_from(IDS))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    history=st.lists(EVENT, min_size=1, max_size=24),
    cuts=st.tuples(st.sets(st.integers(1, 23)), st.sets(st.integers(1, 23))),
    turns=st.lists(st.sampled_from(["first", "second", "fill", "lose"]), max_size=40),
)
async def test_interleaved_writers_end_in_the_newest_state(
    cache_kit: CacheKit,
    history: Sequence[tuple[str, str]],
    cuts: tuple[set[int], set[int]],
    turns: Sequence[str],
) -> None:
    """Two projectors cut one history differently and take turns at random, while fills come
    in between and the store is lost: in the end the cache holds what the history ends in."""
    await cache_kit.lose()
    writers = [HistoryWriter(cache_kit.cache, history, cut) for cut in cuts]
    highest: Cursor | None = None
    for turn in turns:
        if turn == "lose":
            await cache_kit.lose()
            highest = None
        elif turn == "fill":
            for entity_id in IDS:
                await cache_kit.cache.fill("note", entity_id, b"filled", 60)
        else:
            await writers[turn == "second"].step()
        watermark = await cache_kit.cache.watermark()
        assert highest is None or (watermark is not None and watermark.sequence >= highest.sequence)
        highest = watermark
    for writer in writers:
        await writer.finish()

    assert await cache_kit.cache.watermark() == at(len(history))
    for entity_id in IDS:
        known = await cache_kit.cache.get("note", entity_id)
        expected = expected_of(history, entity_id)
        if expected is None:
            assert known is None or known.cursor is None
        elif known is not None and known.cursor is None:
            # A fill may stand where nothing is known: never before a state that stands.
            assert expected == Cached(None, None)
        elif expected == Cached(None, None):
            assert known is None or known.model is None
        else:
            assert known == expected
