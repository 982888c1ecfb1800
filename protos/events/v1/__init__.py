"""Contracts: the event envelope, marks, services and the stream's format (package zephyr.events.v1)."""
