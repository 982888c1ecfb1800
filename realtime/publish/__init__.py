"""Domain events into the stream: checked, stored in order, each once, with their exact cursors.

An event's way, one file a station:

    services/publish.py, services/publish_stream.py   what clients ask, and what they are told
      rules.py       the contract's rules; payloads.py: which types may be in ``other``; access.py: who may
      draft.py       an event as it is stored: subject, headers, envelope
      line.py        events in their order, one batch at the broker at a time (queue.py: which; item.py: what)
        producer.py  whose they are: session, what is reached; results.py: what was given; table.py: all of them
        marks.py     what of that stands in the stream
      together.py    what has no producer, stored at once
      versions.py    what an event expects of its entity, and what there is
      broker.py      batches and single messages to JetStream (commands.py: their bytes)
      arrivals.py    when the broker stored what this server reads; places.py: cursors of that

Why batches end with a mark: docs/decisions/024-a-batch-ends-with-its-mark.md.
"""
