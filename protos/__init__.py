"""The contracts: protobuf files, the Python generated beside them, and the stream's format.

``common/v1`` holds errors, request metadata and paging; ``models/v1`` the rows that
clients see; ``events/v1`` the event envelope, the bridge's marks, the services, and in
``stream_format`` the subjects and headers that the JetStream stream is written with.
It imports nothing else of Zephyr's; ``bridge`` and ``realtime`` meet here and on the broker.
"""
