# SPDX-License-Identifier: GPL-2.0-or-later
"""The bus module against a real dbus-daemon of its own (no root needed), with each library that is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.waits import wait_for
from .namespaces import die_with_parent

pytestmark = pytest.mark.skipif(not shutil.which("dbus-daemon"), reason="needs dbus-daemon")

CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""

PROLOGUE = """
import asyncio, os
from signal import SIGCONT, SIGKILL, SIGSTOP
from nm_mptcp.dbus.connection import *
from nm_mptcp.dbus import connection as module

async def main():
{body}

asyncio.run(main())
"""


class Daemon:
    """A dbus-daemon."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "bus"
        self.configuration = directory / "bus.conf"
        self.configuration.write_text(CONFIGURATION.format(socket=self.socket))
        self.start()

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={self.configuration}", "--nofork", "--nopidfile"],
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        wait_for("the bus is there", self.socket.exists, every=0.005)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.process.send_signal(signal.SIGCONT)
    made.stop()


@pytest.fixture(params=[each for each in ("fast", "next") if importlib.util.find_spec(f"dbus_{each}")])
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(body: str, library: str, daemon: Daemon | None, *, address: str = "") -> str:
    """Run lines of Python in a process of their own (the library is chosen at import); what it printed."""
    program = PROLOGUE.format(body="\n".join("    " + line for line in body.strip().splitlines()))
    environment = os.environ | {
        "NM_MPTCP_DBUS": library,
        "DBUS_SYSTEM_BUS_ADDRESS": address or (f"unix:path={daemon.socket}" if daemon else ""),
        "DAEMON": str(daemon.process.pid if daemon else 0),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "never retrieved" not in done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_forced_library_is_used(daemon: Daemon, library: str) -> None:
    assert run("print(LIBRARY)", library, daemon).strip() == f"dbus_{library}"


def test_an_unknown_library_is_refused() -> None:
    environment = os.environ | {"NM_MPTCP_DBUS": "jeepney"}
    done = subprocess.run(
        [sys.executable, "-c", "import nm_mptcp.dbus.connection"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "NM_MPTCP_DBUS is 'jeepney'" in done.stderr


def test_a_call_and_its_answer(daemon: Daemon, library: str) -> None:
    body = """
bus = await module.connected()
print(bus.unique_name)
print(await bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameHasOwner", "s", "x.y"))
print(repr(await bus.owner("x.y")), await bus.owner("org.freedesktop.DBus"))
print(await bus.request_name("x.y"), await bus.owner("x.y") == bus.unique_name)
other = await module.connected()
print(await other.request_name("x.y"))
await bus.release_name("x.y")
print(await other.request_name("x.y"))
bus.close()
print(await bus.lost)
bus.close()
"""
    assert run(body, library, daemon).splitlines() == [
        ":1.0",
        "[False]",
        "'' org.freedesktop.DBus",
        "True True",
        "False",
        "True",
        "the connection to the system bus was closed",
    ]


def test_an_error_reply_is_an_exception_of_one_line(daemon: Daemon, library: str) -> None:
    body = """
bus = await module.connected()
for to, path, member in (("org.freedesktop.DBus", "/org/freedesktop/DBus", "Nope"), ("x.y", "/", "M")):
    try:
        await bus.call(to, path, "org.freedesktop.DBus", member)
    except BusError as error:
        print(error.name, error.gone, bool(str(error)), len(str(error).splitlines()))
"""
    assert run(body, library, daemon).splitlines() == [
        "org.freedesktop.DBus.Error.UnknownMethod True True 1",
        "org.freedesktop.DBus.Error.NameHasNoOwner True True 1",
    ]


@pytest.mark.parametrize("how", ["nothing there", "no address", "a daemon that hangs up"])
def test_a_failed_connection_is_one_error(tmp_path: Path, library: str, how: str) -> None:
    body = """
import socket, threading
if os.environ["DBUS_SYSTEM_BUS_ADDRESS"].endswith("/hangs-up"):
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.environ["DBUS_SYSTEM_BUS_ADDRESS"].partition("=")[2])
    server.listen()
    threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
bus = Bus()
try:
    await bus.connect(timeout=3)
except BusError as error:
    print(error.name, "|", error.text.partition(":")[0], "|", error.gone)
print(bus.lost.done())
try:
    await bus.call("x.y", "/", "x.y", "M")
except BusError as error:
    print(error.name)
"""
    address = {
        "nothing there": f"unix:path={tmp_path}/none",
        "no address": "nonsense",
        "a daemon that hangs up": f"unix:path={tmp_path}/hangs-up",
    }[how]
    failed = "Disconnected | no connection to the system bus"
    assert run(body, library, None, address=address).splitlines() == [
        f"org.freedesktop.DBus.Error.{'NoServer | no system bus' if how == 'nothing there' else failed} | True",
        "True",
        "org.freedesktop.DBus.Error.Disconnected",
    ]


def test_a_call_ends_when_the_daemon_dies(daemon: Daemon, library: str) -> None:
    body = """
bus = await module.connected()
os.kill(int(os.environ["DAEMON"]), SIGSTOP)
call = asyncio.ensure_future(bus.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus.Peer", "Ping", timeout=15))
await asyncio.sleep(0)
os.kill(int(os.environ["DAEMON"]), SIGKILL)
try:
    await call
except BusError as error:
    print(error.name)
print((await bus.lost).partition(":")[0])
try:
    await bus.call("x.y", "/", "x.y", "M")
except BusError as error:
    print(error.name, error)
bus.close()
"""
    said = run(body, library, daemon).splitlines()
    assert said[:2] == ["org.freedesktop.DBus.Error.Disconnected", "the connection to the system bus is gone"]
    assert said[2].startswith("org.freedesktop.DBus.Error.Disconnected M: the connection to the system bus is gone")


def test_a_call_has_a_time_limit(daemon: Daemon, library: str) -> None:
    body = """
bus = await module.connected()
os.kill(int(os.environ["DAEMON"]), SIGSTOP)
try:
    await bus.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus.Peer", "Ping", timeout=0.1)
except BusError as error:
    print(error.name, error)
os.kill(int(os.environ["DAEMON"]), SIGCONT)
print(await bus.call("org.freedesktop.DBus", "/", "org.freedesktop.DBus.Peer", "Ping"))
"""
    assert run(body, library, daemon).splitlines() == [
        "org.freedesktop.DBus.Error.NoReply Ping: no answer from org.freedesktop.DBus within 0.1 s",
        "[]",
    ]


def test_calls_survive_a_daemon_that_reads_nothing_for_a_while(daemon: Daemon, library: str) -> None:
    """Its socket is full where it is busy, or somebody asks for much: to the libraries that is the end of the connection."""
    body = """
bus = await module.connected()
daemon = "org.freedesktop.DBus"
os.kill(int(os.environ["DAEMON"]), SIGSTOP)
name = "x." + "y" * 200
asked = (bus.call(daemon, "/", daemon, "NameHasOwner", "s", name, timeout=60) for _ in range(8000))
calls = [asyncio.ensure_future(each) for each in asked]
while bus._connection._writer.buf is None and not bus.lost.done():
    await asyncio.sleep(0)
for _ in range(3):
    await asyncio.sleep(0)
os.kill(int(os.environ["DAEMON"]), SIGCONT)
answers = await asyncio.gather(*calls, return_exceptions=True)
print(answers.count([False]), bus.lost.done())
"""
    assert run(body, library, daemon).strip() == "8000 False"


def test_a_daemon_that_comes_back_is_reached_by_a_new_bus(daemon: Daemon, library: str) -> None:
    body = """
bus = await module.connected()
print("connected", flush=True)
await bus.lost
while True:
    try:
        bus = await module.connected()
        break
    except BusError:
        await asyncio.sleep(0.02)
print(bus.unique_name)
"""
    program = PROLOGUE.format(body="\n".join("    " + line for line in body.strip().splitlines()))
    environment = os.environ | {"NM_MPTCP_DBUS": library, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={daemon.socket}"}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout
        assert client.stdout.readline() == "connected\n"
        daemon.stop()
        daemon.start()
        assert client.stdout.readline() == ":1.0\n"
        assert client.wait(10) == 0


def test_a_service_is_called_and_its_signals_are_heard(daemon: Daemon, library: str) -> None:
    body = """
class Greeter(ServiceInterface):
    @method()
    async def Greet(self, name: "s") -> "a{sv}":
        if not name:
            raise DBusError("x.Nameless", "who are you?")
        self.Greeted(name)
        return {"hello": Variant("s", name), "many": Variant("a(su)", [["one", 1]])}
    @signal()
    def Greeted(self, name) -> "s":
        return name
    @dbus_property(access=PropertyAccess.READ)
    def Mood(self) -> "s":
        return "fine"

bus, client = await module.connected(), await module.connected()
bus.export("/greeter", Greeter("x.Greeter"))
assert await bus.request_name("x.greeter")
heard = asyncio.Event()
def broken(signal):
    heard.set()
    print(signal.interface, signal.member, signal.path, signal.sender == bus.unique_name, unpack(signal.body))
await client.add_match("type='signal',interface='x.Greeter'")
client.on_signal(broken)
(answer,) = await client.call("x.greeter", "/greeter", "x.Greeter", "Greet", "s", "me")
print(unpack(answer))
await asyncio.wait_for(heard.wait(), 5)
try:
    await client.call("x.greeter", "/greeter", "x.Greeter", "Greet", "s", "")
except BusError as error:
    print(error.name, error)
print(unpack(await client.call("x.greeter", "/greeter", "org.freedesktop.DBus.Properties", "Get", "ss", "x.Greeter", "Mood")))
"""
    assert sorted(run(body, library, daemon).splitlines()) == sorted(
        [
            "x.Greeter Greeted /greeter True ['me']",
            "{'hello': 'me', 'many': [['one', 1]]}",
            "x.Nameless who are you?",
            "['fine']",
        ]
    )


def test_a_method_knows_its_caller_also_while_others_call(daemon: Daemon, library: str) -> None:
    body = """
async def answer(caller, member, arguments):
    await asyncio.sleep(0.05)
    if arguments:
        raise DBusError("x.Refused", arguments[0])
    return [f"{caller.name} {caller.interactive}"]

bus = await module.connected()
clients = [await module.connected() for _ in range(3)]
bus.answer("/who", "x.Who", {"Asks": ("", "s"), "Fails": ("s", "")}, answer)
assert await bus.request_name("x.who")
async def ask(client, interactive):
    (answer,) = await client.call("x.who", "/who", "x.Who", "Asks", interactive=interactive)
    return answer == f"{client.unique_name} {interactive}"
print(await asyncio.gather(*[ask(client, way) for client in clients for way in (False, True)]))
print([await client.user(bus.unique_name) == os.geteuid() for client in clients])
for member, signature, arguments in (("Fails", "s", ["no"]), ("Fails", "", []), ("Nope", "", [])):
    try:
        await clients[0].call("x.who", "/who", "x.Who", member, signature, *arguments)
    except BusError as error:
        print(error.name.rpartition(".")[2], error if member == "Fails" and arguments else "")
"""
    assert run(body, library, daemon).splitlines() == [
        str([True] * 6),
        str([True] * 3),
        "Refused no",
        "UnknownMethod ",
        "UnknownMethod ",
    ]


def test_a_connection_that_ends_while_methods_are_answered(daemon: Daemon, library: str) -> None:
    body = """
begun = asyncio.Event()
async def answer(caller, member, arguments):
    begun.set()
    await bus.user(caller.name) if arguments else await asyncio.sleep(60)

bus, client = await module.connected(), await module.connected()
bus.answer("/who", "x.Who", {"Asks": ("", ""), "AsksTheBus": ("s", "")}, answer)
assert await bus.request_name("x.who")
call = asyncio.ensure_future(client.call("x.who", "/who", "x.Who", "Asks", timeout=10))
await begun.wait()
begun.clear()
other = asyncio.ensure_future(client.call("x.who", "/who", "x.Who", "AsksTheBus", "s", "x", timeout=10))
await begun.wait()
bus.close()
for each in (call, other):
    try:
        await each
    except BusError as error:
        print(error.name)
"""
    said = run(body, library, daemon).splitlines()
    assert said == ["org.freedesktop.DBus.Error.NoReply"] * 2
