"""The texts of arrays and composites: what is read, and what is refused."""

from __future__ import annotations

import pytest

from bridge import literals


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("{}", []),
        ("{1}", ["1"]),
        ("{1,NULL,-3}", ["1", None, "-3"]),
        ('{"NULL",null}', ["NULL", "null"]),
        ('{"",a}', ["", "a"]),
        (r'{"a\"b\\c","{x}","y,z"}', ['a"b\\c', "{x}", "y,z"]),
        ('{"line\nbreak",(1)}', ["line\nbreak", "(1)"]),
        ("[2:3]={1,2}", ["1", "2"]),
        ("[-1:-1]={1}", ["1"]),
        ("[0:0]={[1]}", ["[1]"]),
    ],
)
def test_an_array(text: str, elements: list[str | None]) -> None:
    assert literals.array(text) == elements


def test_an_array_with_another_delimiter() -> None:
    assert literals.array("{(1,1),(0,0);(3,3),(2,2)}", ";") == ["(1,1),(0,0)", "(3,3),(2,2)"]
    assert literals.array('{"a;b";c}', ";") == ["a;b", "c"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{1,2},{3,4}}", "more than one dimension"),
        ('{{"a"}}', "more than one dimension"),
        ("[1:1][2:3]={{1,2}}", "more than one dimension"),
        *[
            (text, "malformed|text form")
            for text in (
                "", "{", "}", "1", "{1", "1}", "{1,}", "{,1}", "{1,,2}", "{1}}", "{1{}", '{"a}', '{"a"b}', '{a"b"}',
                '{"a",}', '{"a";"b"}', r'{"a\"}', r"{a\}", "[1:2]", "[x]={1}", "{1} ",
            )
        ],
    ],
)  # fmt: skip
def test_what_is_no_array(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        literals.array(text)


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        ("()", [None]),
        ("(,)", [None, None]),
        ('("")', [""]),
        ("(1,a)", ["1", "a"]),
        ("(NULL,null)", ["NULL", "null"]),
        (r'("a ""b"" \\ (c), d",x)', ['a "b" \\ (c), d', "x"]),
        ('("""")', ['"']),
        ('("line\nbreak",)', ["line\nbreak", None]),
        ('("{1,2}","{""a b""}")', ["{1,2}", '{"a b"}']),
    ],
)
def test_a_composite(text: str, attributes: list[str | None]) -> None:
    assert literals.composite(text) == attributes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        ")",
        "1,2",
        "(1,2",
        "1,2)",
        '("a)',
        '("a"b)',
        '(a"b")',
        "((1))",
        "(1)(2)",
        r"(a\)",
        "(1,2) ",
        r'("\")',
    ],
)
def test_what_is_no_composite(text: str) -> None:
    with pytest.raises(ValueError, match="no composite"):
        literals.composite(text)


def test_a_text_that_is_shown_is_cut() -> None:
    with pytest.raises(ValueError, match="text form") as raised:
        literals.array("x" * 10_000)
    assert len(str(raised.value)) < 200
