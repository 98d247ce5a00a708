# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp daemon``: the service, in the foreground."""

from __future__ import annotations

import argparse
import signal

from . import fail, record_of, settings


def options(parser: argparse.ArgumentParser) -> None:
    """``--config``."""
    settings.option(parser)


def main(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM; the lock is held all the time, so that nobody else writes.

    The service comes up whatever is in the configuration, without what is no good there. Only a file that was named and
    cannot be read is refused: whoever named it meant it.
    """
    hung_up: list[int] = []  # while nobody reads the configuration again yet: who asks for that must not end us
    signal.signal(signal.SIGHUP, lambda number, _: hung_up.append(number))
    from ..config.files import ConfigurationFiles
    from ..dbus.connection import BusError
    from ..engine.record import StateError
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
            settings.tell(reading)
            record.load()
            run(record, reading.config, configuration, hung_up)

        if remote.order_or_do(record, (), serve):
            return fail("a service is running already: see 'nm-mptcp status' or 'systemctl status nm-mptcp'")
    except (BusError, KernelError, StateError) as error:
        return fail(error)
    return 0
