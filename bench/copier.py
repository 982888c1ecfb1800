"""The ceiling of the snapshot: ``COPY … TO STDOUT`` of the same table, to one reader that only counts.

Run as ``python -m bench.copier DSN TABLE ROWS``. Prints the seconds from the command to the
last row.
"""

from __future__ import annotations

import sys
import time

import psycopg
from psycopg import sql


def copy(dsn: str, table: str, rows: int) -> float:
    """Seconds until all ``rows`` were read."""
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        first, seen = time.perf_counter(), 0
        with cursor.copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(*table.split(".")))) as lines:
            for _ in lines:
                seen += 1
        if seen != rows:
            raise SystemExit(f"error: the table gave {seen} rows of {rows}")
        return time.perf_counter() - first


if __name__ == "__main__":
    dsn, table, rows = sys.argv[1:]
    sys.stdout.write(f"{copy(dsn, table, int(rows))}\n")
