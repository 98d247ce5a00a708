# SPDX-License-Identifier: GPL-2.0-or-later
"""The configuration that a command uses: all files, or that of ``--config``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config.files import Reading
    from ..config.settings import Config

#: So many errors are logged one by one.
_LOGGED = 20


def option(parser: argparse.ArgumentParser) -> None:
    """``--config``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="read this file instead of nm-mptcp.conf and conf.d",
    )


def config_of(arguments: argparse.Namespace) -> Config:
    """The settings; errors in them are logged and ignored."""
    from ..config.files import ConfigurationFiles

    reading = ConfigurationFiles(arguments.config).read()
    log_problems(reading)
    return reading.config


def log_problems(reading: Reading) -> None:
    """Log each error, which is ignored."""
    for problem in reading.problems[:_LOGGED]:
        logging.getLogger(__name__).error("%s; ignored", problem)
    if (more := len(reading.problems) - _LOGGED) > 0:
        logging.getLogger(__name__).error("and %d more errors: see 'nm-mptcp config --check'", more)
