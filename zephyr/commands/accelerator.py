"""``zephyr accelerator``: the hot modules compiled for this machine."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from zephyr.accelerator.build import BuildFailed, build
from zephyr.accelerator.finder import enable, is_enabled
from zephyr.accelerator.manifest import folder, misfit, read
from zephyr.console import CommandError, console, output

app = typer.Typer(
    no_args_is_help=True,
    help="Compile what runs for every row, for this machine. Optional: all works without, only slower.",
)


@app.command("build")
def build_accelerator(
    force: Annotated[bool, typer.Option("--force", help="Compile even if nothing changed.")] = False,
) -> None:
    """Compile the modules with mypyc; takes about half a minute. Needs a C compiler and Python's headers.

    Processes that are started afterwards use them. When a source changes they go back to plain Python,
    until this is run again.
    """
    at = folder()
    if not force and not misfit(read(at), at):
        console.print("the accelerator is up to date")
        return
    began = time.monotonic()
    try:
        with console.status("compiling…"):
            manifest = build()
    except BuildFailed as exc:
        raise CommandError(str(exc), exc.mend) from exc
    console.print(
        f"compiled {len(manifest.sources)} modules with {manifest.compiler} in {time.monotonic() - began:.0f} s"
    )


@app.command("status")
def show_status() -> None:
    """Say whether the compiled modules are used; exits with 1 when they are not."""
    reason = enable()
    output.print("on" if is_enabled() else f"off: {reason}")
    if reason:
        raise typer.Exit(1)
