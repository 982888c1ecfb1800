"""One file a command; ``zephyr.cli`` puts them together."""
