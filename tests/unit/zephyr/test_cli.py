"""The command line loads what the named command needs, and every command is there when none is named."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from zephyr.cli import COMMANDS, command_line

# What only one part of the system needs, each slow to import.
HEAVY = "alembic", "sqlalchemy", "redis", "grpc"
SHOW = f"import sys, zephyr.cli as c; c.command_line(sys.argv[1:]); print(*({{*{HEAVY}}} & {{*sys.modules}}))"


def names(*words: str) -> set[str]:
    return set(typer.main.get_command(command_line(words)).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", [(), ("--help",), ("nonsense",), ("nonsense", "up")])
def test_words_that_name_no_command_get_all(words: tuple[str, ...]) -> None:
    assert names(*words) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_there_when_it_is_named(name: str) -> None:
    assert names(name, "--help") == {name}


@pytest.mark.parametrize("words", [("bridge", "run"), ("up",), ("migrate",)])
def test_a_command_does_not_load_what_others_need(words: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", SHOW, *words], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
