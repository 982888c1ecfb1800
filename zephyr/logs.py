"""How the parts log: one line an event on standard error, JSON with ``ZEPHYR_LOG_FORMAT=json``."""

from __future__ import annotations

import logging
import os
import sys

import structlog

from zephyr.console import CommandError

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logs() -> None:
    """Sets up structlog from ``ZEPHYR_LOG_LEVEL`` (info) and ``ZEPHYR_LOG_FORMAT`` (text).

    Raises:
        CommandError: one of them is not known.
    """
    level = os.environ.get("ZEPHYR_LOG_LEVEL", "info").lower()
    style = os.environ.get("ZEPHYR_LOG_FORMAT", "text").lower()
    if level not in _LEVELS:
        raise CommandError(f"ZEPHYR_LOG_LEVEL is {level!r}", f"use one of: {', '.join(_LEVELS)}", 2)
    if style not in ("text", "json"):
        raise CommandError(f"ZEPHYR_LOG_FORMAT is {style!r}", "use text or json", 2)
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if style == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
