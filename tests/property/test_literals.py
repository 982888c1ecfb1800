"""Arrays, composites, ranges and enums of a real server's making, taken apart to what they were made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge import literals

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
# What decides how a text is quoted, more often than chance would bring it.
TRICKY = st.text(st.sampled_from('"\\{}(),; \t\n\x0b[]:=NULnul1é'), max_size=8)
ITEM = st.none() | TRICKY | TEXT | st.sampled_from(("NULL", "null", "", "{}", "()"))


@pytest.fixture
def server(postgres_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A session with a type of each shape."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE TYPE pair AS (one text, two text)")
        connection.execute("CREATE TYPE nest AS (pairs pair[], texts text[], pair pair, number numeric)")
        yield connection


def on_server(examples: int = 150) -> settings:
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck))


def written(server: psycopg.Connection[Any], query: str, *values: object) -> Any:
    row = server.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]


def test_arrays_as_the_server_writes_them(server: psycopg.Connection[Any]) -> None:
    @on_server()
    @given(st.lists(ITEM, max_size=6), st.integers(-3, 3))
    @example([None], 1)
    @example([""], 0)
    def check(items: list[str | None], first: int) -> None:
        assert literals.array(written(server, "SELECT (%s::text[])::text", items)) == items
        # From another index on: a slice that is assigned begins where it says.
        bounded = f"[{first}:{first + len(items) - 1}]=" if items else ""
        text = bounded + written(server, "SELECT (%s::text[])::text", items)
        assert literals.array(written(server, "SELECT %s::text[]::text", text)) == items

    check()


def test_arrays_of_two_dimensions_are_refused(server: psycopg.Connection[Any]) -> None:
    @on_server(50)
    @given(st.lists(st.lists(ITEM, min_size=2, max_size=2), min_size=1, max_size=3))
    def check(rows: list[list[str | None]]) -> None:
        text = written(server, "SELECT (%s::text[])::text", rows)
        with pytest.raises(ValueError, match="more than one dimension"):
            literals.array(text)

    check()


def test_composites_as_the_server_writes_them(server: psycopg.Connection[Any]) -> None:
    @on_server()
    @given(ITEM, ITEM)
    def check(one: str | None, two: str | None) -> None:
        text = written(server, "SELECT ROW(%s::text, %s::text)::pair::text", one, two)
        assert literals.composite(text) == [one, two]

    check()


def test_nests_as_the_server_writes_them(server: psycopg.Connection[Any]) -> None:
    """Each level quotes what is in it anew."""

    @on_server()
    @given(st.lists(st.tuples(ITEM, ITEM), max_size=3), st.lists(ITEM, max_size=3), ITEM, st.integers())
    def check(
        pairs: list[tuple[str | None, str | None]], items: list[str | None], one: str | None, number: int
    ) -> None:
        text = written(
            server,
            "SELECT ROW((SELECT coalesce(array_agg(ROW(p->>0, p->>1)::pair ORDER BY n), '{}') FROM"
            " json_array_elements(%s::json) WITH ORDINALITY AS given (p, n)),"
            " %s::text[], ROW(%s::text, NULL)::pair, %s::numeric)::nest::text",
            json.dumps(pairs),
            items,
            one,
            number,
        )
        found = literals.composite(text)
        assert found[0] is not None
        assert found[1] is not None
        assert found[2] is not None
        inner = [literals.composite(item) for item in literals.array(found[0]) if item is not None]
        assert inner == [list(pair) for pair in pairs]
        assert literals.array(found[1]) == items
        assert literals.composite(found[2]) == [one, None]
        assert found[3] == str(number)

    check()


def test_ranges_and_labels_in_arrays(server: psycopg.Connection[Any]) -> None:
    """Their texts are taken as they are, quoted or not, and the server reads each as what it was."""

    @on_server(60)
    @given(
        st.lists(
            st.tuples(ITEM.filter(lambda item: item is not None), st.sampled_from(("(]", "()"))),
            max_size=4,
        )
    )
    def check(given_ranges: list[tuple[str, str]]) -> None:
        ranges = [
            written(server, "SELECT numrange(NULL, length(%s), %s)::text", low, bounds)
            for low, bounds in given_ranges
        ]
        text = written(server, "SELECT (%s::numrange[])::text", ranges)
        assert literals.array(text) == ranges
        multi = written(server, "SELECT array[(%s::numrange[])[1]::nummultirange]::text", ranges)
        assert literals.array(multi) == [
            None if not ranges else written(server, "SELECT %s::numrange::nummultirange::text", ranges[0])
        ]

    check()


@given(TEXT | TRICKY)
@settings(max_examples=1000)
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (literals.array, literals.composite):
        try:
            found = read(text)
        except ValueError:
            continue
        assert all(item is None or len(item) <= len(text) for item in found)


def test_a_long_text_that_is_cut_is_refused_soon() -> None:
    """No pattern goes back and forth over a quote that never ends."""
    for text in ('{"' + 'a\\"' * 200_000 + "}", '("' + '""' * 200_000 + ")", "{" + "a" * 500_000 + '"}'):
        with pytest.raises(ValueError, match="text form"):
            literals.array(text) if text[0] == "{" else literals.composite(text)
