# SPDX-License-Identifier: GPL-2.0-or-later
"""A private dbus-daemon for a test, and a stand-in for the nm-mptcp service on it (a process of its own)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  {policy}
</busconfig>
"""

#: Owns the name and answers every method call as told: with an empty reply, an error, or never.
_SERVICE = """\
import asyncio, sys
from nm_mptcp.dbus.connection import LIBRARY
import importlib
package = importlib.import_module(LIBRARY)
aio = importlib.import_module(LIBRARY + ".aio")
behaviour = sys.argv[1]

async def main():
    bus = await aio.MessageBus(bus_type=package.BusType.SYSTEM).connect()

    def handler(message):
        if message.message_type is not package.MessageType.METHOD_CALL or message.destination == "":
            return None
        print(message.interface + "." + message.member, message.path, flush=True)
        if behaviour == "answers":
            bus.send(package.Message.new_method_return(message))
        elif behaviour == "refuses":
            bus.send(package.Message.new_error(message, "org.nm_mptcp1.Error.Failed", "table full *\\nsecond line"))
        elif behaviour == "lacks another":
            lacks = "org.freedesktop.DBus.Error.ServiceUnknown: no org.example"
            bus.send(package.Message.new_error(message, "org.nm_mptcp1.Error.Failed", lacks))
        return True

    bus.add_message_handler(handler)
    reply = await bus.request_name("org.nm_mptcp1", package.NameFlag.DO_NOT_QUEUE)
    assert reply is package.RequestNameReply.PRIMARY_OWNER, reply
    print("ready", flush=True)
    await bus.wait_for_disconnect()

asyncio.run(main())
"""


@dataclass(frozen=True)
class PrivateBus:
    """Where it listens; ``environment`` is what lets a process use it as the system bus."""

    socket: Path
    process: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        return {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.socket}"}

    @contextlib.contextmanager
    def service(self, behaviour: str) -> Iterator[Service]:
        """The stand-in, ready; ``behaviour`` is "answers", "refuses", "lacks another" (service) or "hangs"."""
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVICE, behaviour],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield Service(process)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@dataclass(frozen=True)
class Service:
    """The stand-in's process."""

    process: subprocess.Popen[str]

    def calls(self) -> list[str]:
        """Ends it and tells the method calls that it got, each as "INTERFACE.METHOD OBJECT"."""
        self.process.kill()
        assert self.process.stdout is not None
        return self.process.stdout.read().splitlines()


_EVERYTHING_ALLOWED = '<policy user="root"><allow own="*"/><allow send_destination="*"/></policy>'


@contextlib.contextmanager
def private_bus(policy: str = _EVERYTHING_ALLOWED) -> Iterator[PrivateBus]:
    """A dbus-daemon with the rules of a system bus and ``policy`` besides, in a folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="nm-mptcp-bus-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        socket = folder / "socket"
        configuration = folder / "bus.conf"
        configuration.write_text(_CONFIGURATION.format(socket=socket, policy=policy))
        daemon = subprocess.Popen(
            ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--nopidfile", "--print-address"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert daemon.stdout is not None
        try:
            assert daemon.stdout.readline().startswith("unix:")  # it listens now
            yield PrivateBus(socket, daemon)
        finally:
            daemon.kill()
            daemon.communicate()
