"""The harness: what is measured, beside the ceiling that it is measured against.

    bridge.py      zephyr bench bridge: its cases, one after the other
    ├── loaded.py      rows a second from a loaded WAL; ceiling: reader.py, a bare reader of the same slot
    └── latency.py     from COMMIT to stored, at the steady rate that paced.py keeps
    snapshot.py    the first copy of a table; ceiling: copier.py, a COPY of the same table
    fanout.py      deliveries a second to many subscribers; ceilings: handler.py, a bare gRPC handler that
                   writes the same frames, and relay.py, a bare one that reads the same stream
    catchup.py     a long past read by one; ceilings: consumer.py, a bare socket, and the same handler
    idle.py        memory of idle streams beside the handler's, and how soon all are back after a restart
    match.py       what an event costs beside subscriptions that do not want it
    publish.py     events through PublishStream: publisher.py on bytes, and the Python client; beside nats_publisher.py
    │              and raw_publisher.py, the ceiling; new_event.py makes the events
    └── broadcast.py   broadcasts to many: listener.py
    handled.py     zephyr bench latency: from COMMIT to the client's handler
    ├── serving.py     NATS and server of one case; writer.py stores events in the bridge's place
    ├── client.py      streams that check every frame (skim.py reads it in its bytes, run.py is one subscription)
    ├── clients.py     those of a round
    └── program.py     writer, client and handler as processes
    ceiling.py     runs a ceiling as a process
    rounds.py      the case of several rounds; result.py cases as the JSON that programs read
    rig.py         Postgres, NATS and bridge of one case, on folders of their own
    database.py    a session with Postgres
    load.py        the changes that are written; stream.py what is stored; usage.py what it cost

A figure is worth something beside its ceiling only: both are taken in turn, in the same run,
with the same servers and settings. Nothing counts unless exactly what was written was stored.
"""
