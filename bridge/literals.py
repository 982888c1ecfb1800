"""The texts of arrays and composites, taken apart.

What ``array_out`` and ``record_out`` write is read, and nothing wider: a text that is cut, or
has something left over, is a ``ValueError``. NULL is None. Elements and attributes come as
texts, for the converters of their own types.

Source: the PostgreSQL documentation, "Array Input and Output Syntax" and "Composite Type Input
and Output Syntax".
"""

from __future__ import annotations

import re
from functools import lru_cache

_BOUNDS = re.compile(r"\[-?\d+:-?\d+\]=")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_DOUBLED = re.compile(r'""|\\(.)', re.DOTALL)
_ATTRIBUTE = re.compile(r'"([^"\\]*(?:(?:""|\\.)[^"\\]*)*)"|([^,()"\\]*)', re.DOTALL)


def array(value: str, delimiter: str = ",") -> list[str | None]:
    """The elements of a one-dimensional array, wherever its index begins.

    Raises:
        ValueError: it has more dimensions, or is malformed.
    """
    text = value
    if text[:1] == "[":
        bounds = _BOUNDS.match(text)
        if bounds is None:
            raise ValueError("the array has more than one dimension, or is malformed")
        text = text[bounds.end() :]
    if text == "{}":
        return []
    if text[:2] == "{{":
        raise ValueError("the array has more than one dimension")
    if len(text) < 3 or text[0] != "{" or text[-1] != "}":
        raise _malformed("array", value)
    if '"' not in text and "\\" not in text:
        items = text[1:-1].split(delimiter)
        if "" in items or "{" in text[1:] or "}" in text[:-1]:
            raise _malformed("array", value)
        return [None if item == "NULL" else item for item in items]
    return _quoted_array(value, text, delimiter)


def composite(value: str) -> list[str | None]:
    """The attributes of a composite; ``()`` is one that is NULL.

    Raises:
        ValueError: it is malformed.
    """
    if len(value) < 2 or value[0] != "(" or value[-1] != ")":
        raise _malformed("composite", value)
    found: list[str | None] = []
    at, end = 1, len(value) - 1
    while True:
        part = _ATTRIBUTE.match(value, at, end)
        if part is None:
            raise _malformed("composite", value)
        quoted, plain = part.groups()
        if quoted is not None:
            found.append(_DOUBLED.sub(_second, quoted) if '"' in quoted or "\\" in quoted else quoted)
        else:
            found.append(plain or None)
        at = part.end()
        if at == end:
            return found
        if value[at] != ",":
            raise _malformed("composite", value)
        at += 1


def _quoted_array(value: str, text: str, delimiter: str) -> list[str | None]:
    element = _element(delimiter)
    found: list[str | None] = []
    at, end = 1, len(text) - 1
    while True:
        part = element.match(text, at, end)
        if part is None:
            raise _malformed("array", value)
        quoted, plain = part.groups()
        if quoted is not None:
            found.append(_ESCAPED.sub(r"\1", quoted) if "\\" in quoted else quoted)
        else:
            found.append(None if plain == "NULL" else plain)
        at = part.end()
        if at == end:
            return found
        if text[at] != delimiter:
            raise _malformed("array", value)
        at += 1


@lru_cache(maxsize=16)
def _element(delimiter: str) -> re.Pattern[str]:
    return re.compile(rf'"([^"\\]*(?:\\.[^"\\]*)*)"|([^{{}}"\\{re.escape(delimiter)}]+)', re.DOTALL)


def _second(escape: re.Match[str]) -> str:
    """A doubled quote is one; what a backslash stands before stands for itself."""
    return escape[1] or '"'


def _malformed(what: str, value: str) -> ValueError:
    return ValueError(f"{value[:80]!r} is no {what} in Postgres' text form")
