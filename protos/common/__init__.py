"""Contracts: common."""
