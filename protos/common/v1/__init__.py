"""Contracts: errors, request metadata, paging (package zephyr.common.v1)."""
