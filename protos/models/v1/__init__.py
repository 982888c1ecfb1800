"""Contracts: what rows look like to clients (package zephyr.models.v1)."""
