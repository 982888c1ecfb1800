"""``python -m zephyr`` is the ``zephyr`` command."""

from __future__ import annotations

from zephyr.entry import main

if __name__ == "__main__":
    main()
