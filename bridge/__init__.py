"""The bridge: every committed change of the published tables, once and in order, in the stream.

An event's path, one file a station:

    Postgres ── WAL of a slot ─▶ slot.py        the session that locks, reads and confirms (postgres.py; timeline.py:
                                   │             does a promoted server have what the stream has?)
                                   │ frames
                                 pump.py        reads and encodes, while earlier messages are on their way
                                   ├─▶ pgoutput.py   bytes → messages (change.py), no I/O
                                   ├─▶ encode.py     change → drafts; plan.py: draft → subject, headers, protobuf
                                   │      domain_event.py, context.py: what a transaction emits beside its rows
                                   │      by mapping.py (what is declared), fit.py and catalog.py (held against
                                   │      the live schema), values.py and fields.py (text → field → bytes)
                                   │ messages       reject.py: what stands for a row that cannot be one
                                 outbox.py      what is read and not stored, bounded
                                   │ units
                                 sender.py      one unit in flight, marks on their way with it
                                   ├─▶ publish.py    → JetStream: fence, tail (tail.py), marks (mark_schedule.py:
                                   │      when; growth.py: what others store), over jetstream.py (the API),
                                   │      ingest.py (runs) and batch.py (all or nothing) into stream.py
                                   ├─▶ dead_letters.py   bodies of rejected rows
                                   └─▶ ledger.py     what may be confirmed, back to slot.py

Before the first change of an epoch, snapshot.py copies the tables: chunks.py reads them in parts,
states.py makes them messages, progress.py counts, attempt.py says what an attempt that was broken
off left, and reconcile.py ends what is gone; epoch.py begins a new epoch in a stream that is there.
backfill.py reads rows again while changes stream, and watermarks.py says which of them the pump may
store.

``run.py`` begins term after term, and decides what a fault means. ``term.py`` opens one: the
lock, the source (``origin.py``), the stream (``target.py``), their join (``continuity.py`` says
whether they still do), and what runs together (``tasks.py``). Beside the path: ``feedback.py``
confirms on a clock of its own, ``heartbeat.py`` sends a message through the WAL and waits for it,
``status.py`` answers whoever asks how it is (``survey.py``), ``doctor`` examines what it stands
on. The other half of the path is drawn in ``realtime``.
"""
