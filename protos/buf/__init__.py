"""Contracts of others: what they publish, unchanged but for where it stands."""
