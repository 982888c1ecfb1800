"""The bar of a copy on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from bridge.progress import CopyProgress
from zephyr.copy_bar import CopyBar


def test_the_bar_promises_nothing_while_the_number_of_rows_is_not_known() -> None:
    written = io.StringIO()
    bar = CopyBar(Console(file=written, force_terminal=True, width=100))
    for rows, expected in ((100, 0), (200, 800), (900, 800)):
        bar.show(CopyProgress("public.notes", 1, 1, rows, expected, 100.0))
        (task,) = bar._progress.tasks
        assert task.total == (expected if expected > rows else None)
        assert not task.finished
    bar.show(CopyProgress("public.notes", 1, 1, 950, 800, 100.0, is_over=True))
    assert "950 rows" in written.getvalue()
    assert bar._task is None
