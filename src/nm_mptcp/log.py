# SPDX-License-Identifier: GPL-2.0-or-later
"""Loggers, made ready when the first is asked for: what logs nothing does not load ``logging``, a tenth of a short command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger

#: ``--log-level``: NetworkManager's names and Python's, as ``logging`` counts; ``off`` is above everything.
LEVELS = {
    "off": 60,
    "err": 40,
    "error": 40,
    "warn": 30,
    "warning": 30,
    "info": 20,
    "debug": 10,
    "trace": 5,
}

#: What to set up, until it is.
_chosen: str | None = None


def choose(level: str) -> None:
    """Log from ``level`` on, once somebody has something to log."""
    global _chosen
    _chosen = level


def logger(name: str) -> Logger:
    """A module's logger."""
    global _chosen
    if _chosen is not None:
        from .journal import set_up

        level, _chosen = _chosen, None
        set_up(level)
    import logging

    return logging.getLogger(name)
