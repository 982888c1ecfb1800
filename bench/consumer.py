"""The ceiling of a catch-up: reads the stream from its beginning with a push consumer, on a bare socket.

Run as ``python -m bench.consumer SPEC``. It takes each message out of the bytes as a client of the
broker must, answers the broker's flow control, counts, and does nothing else. Says {"done": the
seconds from the first message to the last of ``messages``}.
"""

from __future__ import annotations

import json
import socket
import sys
import time

INBOX = "_INBOX.zephyr-bench-consumer"
CONFIG = {
    "deliver_subject": INBOX, "deliver_policy": "all", "ack_policy": "none", "max_deliver": 1,
    "mem_storage": True, "num_replicas": 1, "flow_control": True, "idle_heartbeat": 5_000_000_000,
}  # fmt: skip


def read(host: str, port: int, stream: str, messages: int) -> float:
    """Seconds from the first message until so many were read."""
    connection = socket.create_connection((host, port))
    lines = connection.makefile("rb", 1 << 18)
    lines.readline()  # INFO
    body = json.dumps({"stream_name": stream, "config": CONFIG})
    connection.sendall(
        'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n'
        f"SUB {INBOX} 1\r\nSUB {INBOX}-answer 2\r\n"
        f"PUB $JS.API.CONSUMER.CREATE.{stream} {INBOX}-answer {len(body)}\r\n{body}\r\n".encode()
    )
    seen, first = 0, 0.0
    while seen < messages:
        words = lines.readline().split()
        if words[:1] in ([b"HMSG"], [b"MSG"]):
            data = lines.read(int(words[-1]) + 2)
            reply = words[3] if len(words) == (6 if words[0] == b"HMSG" else 5) else b""
            if reply.startswith(b"$JS.ACK."):
                first = first or time.perf_counter()
                seen += 1
            elif reply:  # flow control: the broker goes on when it is answered
                connection.sendall(b"PUB " + reply + b" 0\r\n\r\n")
            elif b'"error"' in data:
                raise SystemExit(f"error: the broker refused: {data.decode()}")
        elif words[:1] == [b"PING"]:
            connection.sendall(b"PONG\r\n")
        elif words[:1] in ([], [b"-ERR"]):
            raise SystemExit(f"error: the broker gave {seen} messages of {messages}: {words}")
    return time.perf_counter() - first


if __name__ == "__main__":
    done = read(**json.loads(sys.argv[1]))
    sys.stdout.write(json.dumps({"done": done}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
