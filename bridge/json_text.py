"""JSON objects to maps of texts, each value to the digit as it was written."""

from __future__ import annotations

import re
from json import JSONDecoder

import orjson

_WHITESPACE = re.compile(r"[ \t\n\r]*")
# Numbers are not computed: only where a value ends is asked of the decoder.
_decode = JSONDecoder(parse_int=str, parse_float=str).raw_decode


def text_map(value: str) -> dict[str, str]:
    """A JSON object; a value that is no text stands as its JSON text, to the digit.

    Raises:
        ValueError: the JSON is no object.
    """
    if value == "{}":
        return {}
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        return _slices(value)  # valid to Postgres all the same: a deep nest, say
    if isinstance(parsed, dict) and all(type(item) is str for item in parsed.values()):
        return parsed
    return _slices(value)


def _slices(value: str) -> dict[str, str]:
    """The members of a JSON object, each value that is no text cut from ``value`` as it stands."""

    def skip(position: int) -> int:
        found = _WHITESPACE.match(value, position)
        return found.end() if found else position

    at = skip(0)
    if value[at : at + 1] != "{":
        raise ValueError("the JSON is no object")
    members: dict[str, str] = {}
    at = skip(at + 1)
    try:
        while value[at] != "}":
            key, at = _decode(value, at)
            at = skip(skip(at) + 1)  # the colon
            item, end = _decode(value, at)
            members[key] = item if value[at] == '"' else value[at:end]
            at = skip(end)
            if value[at] == ",":
                at = skip(at + 1)
    except (ValueError, IndexError, RecursionError) as exc:
        raise ValueError("the JSON cannot be read") from exc
    return members
