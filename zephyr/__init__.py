"""The front door: the ``zephyr`` command line, the embedded stack, migrations and the demo.

It may import ``bridge`` and ``realtime``; nothing imports it.
"""
