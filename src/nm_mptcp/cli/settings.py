# SPDX-License-Identifier: GPL-2.0-or-later
"""Which configuration a command reads: all files, or one that was named."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config.files import Reading
    from ..config.settings import Config

#: So many problems are told one by one.
_TOLD = 20


def option(parser: argparse.ArgumentParser) -> None:
    """``--config``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="read this file instead of nm-mptcp.conf and conf.d",
    )


def config_of(arguments: argparse.Namespace) -> Config:
    """The settings that count; what is no good in them is told of and left out."""
    from ..config.files import ConfigurationFiles

    reading = ConfigurationFiles(arguments.config).read()
    tell(reading)
    return reading.config


def tell(reading: Reading) -> None:
    """Tell of what is left out, a line each."""
    for problem in reading.problems[:_TOLD]:
        logging.getLogger(__name__).error("%s; left out", problem)
    if (more := len(reading.problems) - _TOLD) > 0:
        logging.getLogger(__name__).error("and %d problems more: see 'nm-mptcp config --check'", more)
