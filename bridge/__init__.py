"""The bridge: every committed change of the published tables, once and in order, in the stream.

An event's path, one file a station:

    Postgres ── WAL of a slot ─▶ slot.py        the session that locks, reads and confirms (postgres.py)
                                   │ frames
                                 pump.py        one path, one unit in flight
                                   ├─▶ pgoutput.py   bytes → messages (change.py), no I/O
                                   ├─▶ encode.py     change → subject, headers, protobuf
                                   │      by mapping.py (what is declared), fit.py and catalog.py
                                   │      (held against the live schema), values.py (text → field)
                                   ├─▶ publish.py    → JetStream: fence, marks, tail
                                   │      over jetstream.py (the API) and ingest.py (runs) into stream.py
                                   └─▶ ledger.py     what may be confirmed, back to slot.py

Before the first change of an epoch, snapshot.py copies the tables: chunks.py reads them in parts,
states.py makes them messages, progress.py counts, and reconcile.py ends what is gone; epoch.py begins
a new epoch in a stream that is there. backfill.py reads rows again while changes stream, and
watermarks.py says which of them the pump may store.

``run.py`` opens and closes all of it, term after term. The other half of the path is drawn
in ``realtime``.
"""
