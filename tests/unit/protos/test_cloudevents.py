"""Values of CloudEvents attributes in headers, by the NATS binding's own example and rules."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import cloudevents as ce


def test_the_bindings_example() -> None:
    assert ce.encode("Euro € 😀") == "Euro%20%E2%82%AC%20%F0%9F%98%80"
    assert ce.decode("Euro%20%e2%82%ac%20%F0%9F%98%80") == "Euro € 😀"


@settings(deadline=None)
@given(st.text())
def test_what_is_written_is_read(text: str) -> None:
    header = ce.encode(text)
    assert ce.decode(header) == text
    assert re.fullmatch(r"[!-~]*", header)
    assert '"' not in header


def test_what_others_may_write() -> None:
    assert ce.decode('"a \\"b\\" c"') == 'a "b" c'
    assert ce.decode("%41") == "A"
    assert ce.decode("plain é") == "plain é"
    for overlong in ("%C0%A0", "%FF"):
        with pytest.raises(ValueError, match="utf-8"):
            ce.decode(overlong)


@settings(deadline=None)
@given(st.integers(0, 253_402_300_799_999_999))
def test_times(at_us: int) -> None:
    text = ce.format_time(at_us)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    assert ce.parse_time(text) == at_us


def test_times_of_others() -> None:
    assert ce.parse_time("1970-01-01T02:00:00+02:00") == 0
    assert ce.parse_time("1970-01-01t00:00:01.5z") == 1_500_000
    assert ce.parse_time("1970-01-01T00:00:00.123456789Z") == 123_456
    for wrong in ("", "now", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z"):
        with pytest.raises(ValueError, match=r".+"):
            ce.parse_time(wrong)
