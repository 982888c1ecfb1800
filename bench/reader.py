"""The ceiling of the bridge: reads a slot as fast as it can and does nothing with it.

Run as ``python -m bench.reader DSN SLOT PUBLICATION ROWS``. It waits and takes frames as the
bridge does, counts those that carry a row, and confirms nothing. As the bridge under load it
lets frames gather for a millisecond when few have come, since being woken for each transaction
would cost more than reading it. Prints the seconds from the first frame to the last row.
"""

from __future__ import annotations

import select
import sys
import time

import psycopg

WAIT_MS = 60_000
FEW_FRAMES, GATHER_S = 64, 0.001
DATA, ROW_KINDS = ord("w"), b"IUD"


def waited(poll: select.poll, gathers: bool) -> bool:
    """Whether something came, at once or after the time that frames need to gather."""
    if gathers:
        select.select((), (), (), GATHER_S)
    return bool(poll.poll(WAIT_MS))


def read(dsn: str, slot: str, publication: str, rows: int) -> float:
    """Seconds from the first frame until ``rows`` were read."""
    pgconn = psycopg.connect(dsn, replication="database", autocommit=True).pgconn
    options = f"(proto_version '1', publication_names '\"{publication}\"')"
    pgconn.exec_(f"START_REPLICATION SLOT {slot} LOGICAL 0/0 {options}".encode())
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    seen, first, since_wait = 0, 0.0, 0
    while seen < rows:
        size, frame = pgconn.get_copy_data(1)
        since_wait += size > 0
        if size > 0 and frame[0] == DATA:
            first = first or time.perf_counter()
            seen += frame[25] in ROW_KINDS
        elif size > 0:
            if frame[17]:  # a keepalive that wants an answer: we live, and confirm nothing
                pgconn.put_copy_data(b"r" + bytes(33))
                pgconn.flush()
        elif size == 0 and poll.poll(0):
            pgconn.consume_input()
        elif size == 0 and waited(poll, bool(first) and since_wait < FEW_FRAMES):
            since_wait = 0
            pgconn.consume_input()
        else:
            raise SystemExit(f"error: the slot gave {seen} rows of {rows}")
    return time.perf_counter() - first


if __name__ == "__main__":
    dsn, slot, publication, rows = sys.argv[1:]
    sys.stdout.write(f"{read(dsn, slot, publication, int(rows))}\n")
