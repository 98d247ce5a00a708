# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp daemon``: the service, in the foreground."""

from __future__ import annotations

import argparse
import signal

from . import config_option, fail, record_of


def options(parser: argparse.ArgumentParser) -> None:
    """``--config``."""
    config_option.option(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM, with the record's lock, so that there is no other writer.

    The service starts whatever the configuration has, and ignores its errors. Only a file of ``--config`` that cannot be
    read is an error.
    """
    hung_up: list[int] = []  # received before the service can reload; the default action would end it
    signal.signal(signal.SIGHUP, lambda number, _: hung_up.append(number))
    from ..config.files import ConfigurationFiles
    from ..dbus.connection import BusError
    from ..engine.record_file import StateError
    from ..kernel.errors import KernelError
    from ..service import remote
    from ..service.daemon import run

    record = record_of(arguments)
    configuration = ConfigurationFiles(arguments.config)
    try:
        reading = configuration.read()
        if configuration.file and not reading.files:
            return fail(reading.problems[0])

        def serve() -> None:
            config_option.log_problems(reading)
            record.load()
            run(record, reading.config, configuration, hung_up)

        if remote.order_or_do(record, (), serve):
            return fail("the service is already running: see 'nm-mptcp status' or 'systemctl status nm-mptcp'")
    except (BusError, KernelError, StateError) as error:
        return fail(error)
    return 0
