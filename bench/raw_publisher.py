"""The ceiling of publishing: what the broker takes from a bare socket, each message acknowledged by itself.

Run as ``python -m bench.raw_publisher SPEC``. Messages of the same subjects and sizes are made beforehand
and written in large pieces, never more than ``in_flight`` without an acknowledgement; of each one its
sequence is taken out of the bytes. Says {"done": the seconds, and the last sequence}.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import time

INBOX = b"_INBOX.zephyr-bench-publisher"
SEQUENCE = re.compile(rb'"seq":(\d+)')


def publish(
    host: str, port: int, subjects: str, entities: int, events: int, size: int, in_flight: int
) -> None:
    """Stores ``events``, whose subjects are ``subjects`` with a number in it."""
    connection = socket.create_connection((host, port))
    connection.recv(1 << 16)  # INFO
    connection.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB %b 1\r\n' % INBOX)
    made = [
        b"PUB %b %b %d\r\n%b\r\n" % ((subjects % number).encode(), INBOX, size, b"x" * size)
        for number in range(entities)
    ]
    say("prepared", events)
    sys.stdin.readline()
    began = time.perf_counter()
    sent = stored = last = 0
    rest = b""
    while stored < events:
        room = min(events - sent, in_flight - sent + stored)
        if room > 0:
            connection.sendall(b"".join([made[number % entities] for number in range(sent, sent + room)]))
            sent += room
        data = connection.recv(1 << 18)
        if not data:
            raise SystemExit("error: the broker hung up")
        whole, _, rest = (rest + data).rpartition(b"\r\n")
        if b'"error"' in whole or b"-ERR" in whole:
            raise SystemExit(f"error: the broker refused: {whole[:500]!r}")
        if b"PING" in whole:
            connection.sendall(b"PONG\r\n")
        for found in SEQUENCE.findall(whole):
            if int(found) <= last:
                raise SystemExit(f"error: after {last} came {found!r}")
            last = int(found)
            stored += 1
    seconds = time.perf_counter() - began
    say("done", {"seconds": seconds, "events": stored, "last": last, "broken": [], "latencies_ms": []})


def say(name: str, value: object) -> None:
    sys.stdout.write(json.dumps({name: value}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    publish(**json.loads(sys.argv[1]))
    sys.stdin.readline()
