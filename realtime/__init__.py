"""The server: the stream, fanned out to every client that wants a part of it.

An event's path, one file a station; the first half is drawn in ``bridge``:

    JetStream ─▶ source.py           the one ordered reader (delivery.py: a consumer; jetstream.py: the API;
                   │                 tap.py, lean.py: frames from the bytes; delivered.py, page.py: what they hold)
                   │ entry.py        a message with its ready-made frame bytes (wire.py, cursor.py)
                 hub.py              transactions whole; who wants it (index.py, filters.py, memberships.py)
                   ├─▶ history.py    the ring, for those a little behind (point.py counts)
                   └─▶ subscriber.py one mailbox each (mailbox.py); never waited for
                          ▲   │
             catchup.py ──┘   └─▶ services/sender.py ─▶ gRPC ─▶ client/
        (from the stream or the ring to the live edge; pace.py: what is live goes first; subscription.py: its life,
         services/stream.py: its owner)

    auth/ ─▶ services/access.py   what a caller may see, where there is a policy

    states.py (states_postgres.py ◀── database.py) ─▶ snapshot.py ─▶ pages.py ─▶ subscriber.py
        (the present state, corrected from the stream up to the point where the tail begins)

    broadcast/ ─▶ services/stream.py                       (beside the stream, and stored nowhere)
    listing.py ─▶ services/list_events.py ─▶ gRPC          (pages of the past; subjects.py: by the broker's index)
    projection.py ─▶ projector.py ─▶ cache/ ─▶ services/read.py ─▶ gRPC   (database.py when it misses;
        read_after.py waits until the cache is as new as a token)

    services/publish.py, services/publish_stream.py, services/cloud_events.py ─▶ publish/ ─▶ JetStream      (domain events; its own page is there)

``app.py`` opens and closes all of it. ``status.py`` turns errors.py into gRPC statuses.
"""
