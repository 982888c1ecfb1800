"""Events for whoever listens now. They are stored nowhere and have no place in the stream.

A broadcast's path, one file a station; ``services/broadcast.py`` takes it from its caller, and ``publish/`` has the
rules that it keeps:

    publish/draft.py ─▶ sender.py ─▶ core NATS ─▶ receiver.py     bounded, by slices: what is too much is dropped
                                             │  cast.py   read once, encoded once
                                         audience.py      who wants it (index.py)
                                             └─▶ box.py ─▶ row.py ─▶ services/stream.py
                                                 (bounded each, and together on one connection)

Nothing here may delay a stored event: broadcasts wait in boxes of their own, are sent when no stored
frame is due or in every fourth turn, and are dropped, and counted, where they do not fit.
"""
