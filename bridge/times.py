"""Postgres' times to Unix microseconds and to protobuf timestamps.

The form is that of ``DateStyle=ISO``; a time zone offset is honoured whatever it is. Times are
computed by hand: Postgres' years go from 4713 BC to 294276 AD, Python's do not.
"""

from __future__ import annotations

import re
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_UNIX_SECONDS_MIN, _UNIX_SECONDS_MAX = -62_135_596_800, 253_402_300_799  # years 1 and 9999

_TIME = re.compile(
    r"(\d{4,})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?"
    r"(?:([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?)?( BC)?\Z"
)


@lru_cache(maxsize=1024)  # the rows of one transaction share their times
def unix_us(value: str) -> int:
    """A timestamptz, or a timestamp taken as UTC, as Unix time in microseconds.

    ``infinity`` is the greatest int64 and ``-infinity`` the least.

    Raises:
        ValueError: the time is past the greatest int64 (in the year 294247), or no time.
    """
    # The usual form, with the offset of a session in UTC: 2026-01-02 03:04:05[.123456][+00]
    if value[-3:] == "+00" and value[10:11] == " " and value[13:14] == ":":
        fraction = value[20:-3]
        seconds = int(value[11:13]) * 3600 + int(value[14:16]) * 60 + int(value[17:19])
        us = (_days_of(value[:10]) * 86_400 + seconds) * 1_000_000
        return us + int(fraction.ljust(6, "0")) if fraction else us
    return _unix_us_of_any(value)


def timestamp(value: str) -> Timestamp:
    """A timestamptz, or a timestamp taken as UTC, between the years 1 and 9999."""
    if value in ("infinity", "-infinity"):
        raise ValueError(f"google.protobuf.Timestamp cannot hold {value}")
    seconds, us = divmod(unix_us(value), 1_000_000)
    if not _UNIX_SECONDS_MIN <= seconds <= _UNIX_SECONDS_MAX:
        raise ValueError(f"google.protobuf.Timestamp cannot hold {value}: it ends at the years 1 and 9999")
    return Timestamp(seconds=seconds, nanos=us * 1000)


def _unix_us_of_any(value: str) -> int:
    if value == "infinity":
        return INT64_MAX
    if value == "-infinity":
        return INT64_MIN
    parts = _TIME.match(value)
    if parts is None:
        raise ValueError(f"{value!r} is no time in ISO form")
    year, month, day, hour, minute, second, fraction, sign, off_h, off_m, off_s, before = parts.groups()
    days = _days_from_civil(1 - int(year) if before else int(year), int(month), int(day))
    seconds = days * 86_400 + int(hour) * 3600 + int(minute) * 60 + int(second)
    offset = int(off_h or 0) * 3600 + int(off_m or 0) * 60 + int(off_s or 0)
    seconds += offset if sign == "-" else -offset
    us = seconds * 1_000_000 + int((fraction or "").ljust(6, "0"))
    if us >= INT64_MAX:  # the greatest itself stands for infinity
        raise ValueError(f"{value} is past the greatest int64 in microseconds")
    return us


@lru_cache(maxsize=4096)
def _days_of(date: str) -> int:
    """Days from 1970-01-01 to a date in the form 2026-01-02; few dates are asked for, often."""
    return _days_from_civil(int(date[:4]), int(date[5:7]), int(date[8:10]))


def _days_from_civil(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the proleptic Gregorian calendar; year 0 is 1 BC.

    Howard Hinnant's days_from_civil: eras of 400 years that begin on 1 March.
    """
    if month <= 2:
        year -= 1
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146_097 + day_of_era - 719_468
