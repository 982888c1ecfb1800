"""Contracts: events."""
