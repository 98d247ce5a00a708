# SPDX-License-Identifier: GPL-2.0-or-later
"""The system bus: the only module that imports dbus-fast or dbus-next.

It uses the subset that both share: dbus-fast where it is installed, else dbus-next. The environment variable
``NM_MPTCP_DBUS`` (``fast`` or ``next``) forces one of them. Their pitfalls (calls that hang when the daemon dies, errors
that are not raised, a constructor that connects) are handled here once.

A :class:`Bus` is one connection, used once: after ``lost`` make a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from ..text import printable

__all__ = [
    "LIBRARY",
    "Bus",
    "BusError",
    "Caller",
    "DBusError",
    "Message",
    "MessageType",
    "NameFlag",
    "PropertyAccess",
    "RequestNameReply",
    "ServiceInterface",
    "Signal",
    "Variant",
    "dbus_property",
    "method",
    "signal",
    "unpack",
]

_log = logging.getLogger(__name__)

_OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

#: ``org.freedesktop.DBus``, its path and interface: the bus itself.
DAEMON = "org.freedesktop.DBus"
DAEMON_PATH = "/org/freedesktop/DBus"

#: Seconds to connect and authenticate: a bus that works takes milliseconds.
CONNECT_TIMEOUT = 2.0

#: Characters of an error's text, which another program wrote.
_LONGEST = 300

if not hasattr(typing, "no_type_check_decorator"):
    # Removed in Python 3.15; dbus-next imports it, for a decorator that may leave functions as they are.
    typing.no_type_check_decorator = lambda decorator: decorator


def _library() -> tuple[ModuleType, ModuleType, ModuleType]:
    """The package, its asyncio and its service module; raises ImportError that says what to install."""
    forced = os.environ.get("NM_MPTCP_DBUS", "")
    if forced not in ("", "fast", "next"):
        raise ImportError(f"NM_MPTCP_DBUS is '{forced}': must be 'fast' (dbus-fast) or 'next' (dbus-next)")
    if forced != "next":
        try:
            import dbus_fast as package
            import dbus_fast.aio as aio
            import dbus_fast.service as service
        except ImportError:
            if forced:
                raise
        else:
            _accept_combined_flags(package)
            return package, aio, service
    try:
        import dbus_next as package
        import dbus_next.aio as aio
        import dbus_next.service as service
    except ImportError as error:
        raise ImportError(f"no D-Bus library: install python3-dbus-fast or python3-dbus-next ({error})") from None
    return package, aio, service


def _accept_combined_flags(package: ModuleType) -> None:
    """dbus-fast 1.x knows single header flags only: a message with two, which anybody may send, ended the connection."""
    constants = importlib.import_module(f"{package.__name__}.constants")
    known = getattr(constants, "MESSAGE_FLAG_MAP", None)
    if isinstance(known, dict):
        known.update({number: constants.MessageFlag(number) for number in range(8)})


_package, _aio, _service = _library()

#: The library in use: ``dbus_fast`` or ``dbus_next``.
LIBRARY: str = _package.__name__

_Function = TypeVar("_Function", bound=Callable[..., Any])

if TYPE_CHECKING:
    # What is used here of both libraries' service modules (neither has types in all versions).
    class ServiceInterface:
        """A D-Bus interface that is exported; methods are marked with :func:`method` and annotated with signatures."""

        def __init__(self, name: str) -> None: ...

        def emit_properties_changed(self, changed: dict[str, Any], invalidated: Sequence[str] = ()) -> None:
            """Send ``PropertiesChanged`` for these (values without Variants, by D-Bus names)."""

    def method(name: str | None = None, disabled: bool = False) -> Callable[[_Function], _Function]:
        """Mark a D-Bus method."""

    def signal(name: str | None = None, disabled: bool = False) -> Callable[[_Function], _Function]:
        """Mark a D-Bus signal: a call of the function sends it."""

    def dbus_property(access: Any = None, name: str | None = None, disabled: bool = False) -> Any:
        """Mark a D-Bus property."""

    class DBusError(Exception):
        """An error reply; raised in an exported method it becomes the reply."""

        type: str
        text: str

        def __init__(self, type: str, text: str) -> None: ...

else:
    ServiceInterface = _service.ServiceInterface
    method = _service.method
    signal = _service.signal
    dbus_property = _service.dbus_property
    DBusError = _package.DBusError

Message: Any = _package.Message
MessageType: Any = _package.MessageType
NameFlag: Any = _package.NameFlag
PropertyAccess: Any = _package.PropertyAccess
RequestNameReply: Any = _package.RequestNameReply
Variant: Any = _package.Variant

_MessageFlag: Any = _package.MessageFlag
_NO_FLAG: Any = _MessageFlag.NONE
_NO_AUTO_START: Any = _MessageFlag.NO_AUTOSTART
_INTERACTIVE: Any = _MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
_NO_REPLY: Any = _MessageFlag.NO_REPLY_EXPECTED
_SIGNAL: Any = MessageType.SIGNAL
_CALL: Any = MessageType.METHOD_CALL
_ERROR: Any = MessageType.ERROR


class BusError(Exception):
    """A call, or the connection, failed. ``name`` is the D-Bus error name; ``text`` is one printable line, cut where it is
    long.

    Errors made here have libdbus's names: ``Disconnected`` (the connection is gone or could not be made), ``NoServer`` (there
    is no bus) and ``NoReply`` (time-out).
    """

    DISCONNECTED = "org.freedesktop.DBus.Error.Disconnected"
    NO_REPLY = "org.freedesktop.DBus.Error.NoReply"
    NO_SERVER = "org.freedesktop.DBus.Error.NoServer"
    NO_OWNER = "org.freedesktop.DBus.Error.NameHasNoOwner"

    def __init__(self, name: str, text: str, sender: str = "") -> None:
        self.name = printable(name, _LONGEST)
        self.text = printable(" ".join(str(text).split()), _LONGEST)
        self.sender = sender
        super().__init__(self.text or name)

    @property
    def by_policy(self) -> bool:
        """Whether the bus itself rejected the call, by its policy for this user; the callee never saw it."""
        return (self.sender, self.name) == ("org.freedesktop.DBus", "org.freedesktop.DBus.Error.AccessDenied")

    @property
    def gone(self) -> bool:
        """Whether the object, its service or the connection does not exist (any more), which is no fault by itself."""
        return self.name in (
            self.DISCONNECTED,
            self.NO_SERVER,
            self.NO_OWNER,
            "org.freedesktop.DBus.Error.ServiceUnknown",
            "org.freedesktop.DBus.Error.UnknownInterface",
            "org.freedesktop.DBus.Error.UnknownMethod",  # GDBus's error for an unknown path
            "org.freedesktop.DBus.Error.UnknownObject",
        )


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal; ``body`` has Variants where the signature has ``v`` (see :func:`unpack`)."""

    sender: str
    path: str
    interface: str
    member: str
    body: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a method of ours: its unique name, and whether the call allows interactive authorization."""

    name: str
    interactive: bool


#: Method -> signatures of its arguments and of its reply.
Signatures = Mapping[str, tuple[str, str]]

#: Executes a method: caller, member, arguments -> reply; raises :class:`DBusError`.
MethodHandler = Callable[[Caller, str, Sequence[Any]], Awaitable[Sequence[Any]]]


def unpack(value: Any) -> Any:
    """``value`` without Variants, at any depth; structs, which are lists or tuples by library, become lists."""
    if isinstance(value, Variant):
        return unpack(value.value)
    if isinstance(value, dict):
        return {key: unpack(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [unpack(item) for item in value]
    return value


class _PatientSocket:
    """The writer's socket: the libraries take EAGAIN of a full socket for the end of the connection."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def send(self, data: Any) -> int:
        try:
            return int(self._sock.send(data))
        except BlockingIOError:
            return 0  # nothing was sent: they wait until it is writable

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _MessageBus(_aio.MessageBus):  # type: ignore[misc, name-defined]  # both libraries' class, untyped
    """The library's connection, with fixes for what cannot be worked round from outside."""

    async def _auth_readline(self) -> str:
        # Without this, dbus-next and older dbus-fast spin for ever when the daemon closes during AUTH.
        line = b""
        while not line.endswith(b"\r\n"):
            byte = await self._loop.sock_recv(self._sock, 1)
            if not byte or len(line) > 16384:
                raise ConnectionError("the bus closed the connection during authentication")
            line += byte
        return line[:-2].decode()

    #: Path of the ObjectManager for the objects below it; "" for none.
    manager = ""

    def send(self, message: Any) -> Any:
        if self.manager and message.interface == _OBJECT_MANAGER and message.message_type is _SIGNAL:
            # The libraries send InterfacesAdded and -Removed from the object itself; by the specification its manager does.
            if message.path == self.manager:
                return self._loop.create_future()
            message.path = self.manager
        # For a call nobody awaits the future of its sending: when the socket fails, asyncio would log that, and dbus-fast may
        # raise as well, which leaves the call's own future pending.
        sent = self._loop.create_future()
        sent.add_done_callback(_retrieved)
        if not message.serial:
            message.serial = self.next_serial()
        try:
            self._writer.schedule_write(message, sent)
        except (OSError, ValueError) as error:
            if not sent.done():
                sent.set_exception(error)
        return sent

    if LIBRARY == "dbus_next":

        def _send_reply(self, message: Any) -> Any:
            # dbus-next answers an error that an exported method raises, and then raises it into the event loop as well.
            reply = super()._send_reply(message)
            type(reply).__exit__ = type(reply)._exit  # a new class at each call
            return reply


class Bus:
    """One connection to the system bus (``DBUS_SYSTEM_BUS_ADDRESS`` counts). Make it inside a running loop."""

    def __init__(self) -> None:
        #: Done, with a line that says why, when the connection is gone; never fails.
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._connection: Any = None
        self._watch: asyncio.Future[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()

    @property
    def unique_name(self) -> str:
        """Our own name on the bus (``:1.42``), "" when not connected."""
        return (self._connection.unique_name or "") if self._connection is not None else ""

    async def connect(self, address: str | None = None, *, timeout: float = 5.0) -> None:
        """Connect and authenticate; raises :class:`BusError`, after which this object cannot be used."""
        if self._connection is not None:
            raise RuntimeError("a Bus connects once: make a new one")
        try:
            self._connection = _MessageBus(bus_address=address, bus_type=_package.BusType.SYSTEM)
            async with asyncio.timeout(timeout):
                await self._connection.connect()
        except asyncio.CancelledError:
            self.close()
            raise
        except TimeoutError:
            self.close()
            raise BusError(BusError.DISCONNECTED, f"the system bus does not answer within {timeout:g} s") from None
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self.close()
            raise BusError(BusError.NO_SERVER, f"no system bus: {_reason(error)}") from None
        except Exception as error:  # for a bad socket, address or authentication each library raises its own
            self.close()
            raise BusError(BusError.DISCONNECTED, f"no connection to the system bus: {_reason(error)}") from None
        self._connection._writer.sock = _PatientSocket(self._connection._writer.sock)
        self._watch = asyncio.ensure_future(self._connection.wait_for_disconnect())
        self._watch.add_done_callback(self._gone)

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *body: Any,
        timeout: float = 5.0,
        no_auto_start: bool = True,
        interactive: bool = False,
    ) -> list[Any]:
        """Call a method and return the body of the reply; ``timeout`` in seconds.

        Raises :class:`BusError` for an error reply, a time-out or a lost connection. ``no_auto_start=False`` lets the bus
        start the service; ``interactive`` allows interactive authorization (polkit may ask for a password).
        """
        if self._connection is None or self.lost.done():
            why = self.lost.result() if self.lost.done() else "not connected"
            raise BusError(BusError.DISCONNECTED, f"{member}: {why}")
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
            flags=(_NO_AUTO_START if no_auto_start else _NO_FLAG) | (_INTERACTIVE if interactive else _NO_FLAG),
        )
        asked = asyncio.ensure_future(self._connection.call(message))
        try:
            # dbus-next does not end a call when the connection is lost.
            await asyncio.wait((asked, self.lost), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                if self.lost.done():
                    raise BusError(BusError.DISCONNECTED, f"{member}: {self.lost.result()}")
                raise BusError(BusError.NO_REPLY, f"{member}: no answer from {destination} within {timeout:g} s")
            try:
                reply = asked.result()
            except Exception as error:
                raise BusError(BusError.DISCONNECTED, f"{member}: {_reason(error)}") from None
        finally:
            asked.cancel()
        if reply is None:
            raise BusError(BusError.DISCONNECTED, f"{member}: the connection to the system bus is gone")
        if reply.message_type is _ERROR:
            text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else reply.error_name
            raise BusError(reply.error_name, text, reply.sender or "")
        return list(reply.body)

    async def add_match(self, rule: str) -> None:
        """Ask the bus for the signals of a match rule; raises :class:`BusError`."""
        await self.call(DAEMON, DAEMON_PATH, DAEMON, "AddMatch", "s", rule)

    async def remove_match(self, rule: str) -> None:
        """Remove a rule of :meth:`add_match`; raises :class:`BusError`."""
        await self.call(DAEMON, DAEMON_PATH, DAEMON, "RemoveMatch", "s", rule)

    def on_signal(self, handler: Callable[[Signal], None]) -> None:
        """Call ``handler`` for each signal, whoever subscribed to it; what it raises is logged."""

        def handle(message: Any) -> None:
            if message.message_type is not _SIGNAL:
                return
            try:
                handler(
                    Signal(message.sender or "", message.path, message.interface or "", message.member, message.body)
                )
            except Exception:
                _log.exception("signal %s.%s of %s", message.interface, message.member, message.path)

        self._connection.add_message_handler(handle)

    async def owner(self, name: str) -> str:
        """The unique name of the owner of ``name``, "" when there is none; raises :class:`BusError`."""
        try:
            (owner,) = await self.call(DAEMON, DAEMON_PATH, DAEMON, "GetNameOwner", "s", name)
        except BusError as error:
            if error.name == BusError.NO_OWNER:
                return ""
            raise
        return str(owner)

    async def user(self, name: str) -> int:
        """The user id of the connection with that name; raises :class:`BusError`."""
        (number,) = await self.call(DAEMON, DAEMON_PATH, DAEMON, "GetConnectionUnixUser", "s", name)
        return int(number)

    async def request_name(self, name: str) -> bool:
        """Take a well-known name; False where it has another owner (no queueing). Raises :class:`BusError`."""
        (answer,) = await self.call(
            DAEMON, DAEMON_PATH, DAEMON, "RequestName", "su", name, int(NameFlag.DO_NOT_QUEUE.value)
        )
        return answer in (RequestNameReply.PRIMARY_OWNER.value, RequestNameReply.ALREADY_OWNER.value)

    async def release_name(self, name: str) -> None:
        """Release a well-known name; raises :class:`BusError`."""
        await self.call(DAEMON, DAEMON_PATH, DAEMON, "ReleaseName", "s", name)

    def export(self, path: str, interface: ServiceInterface) -> None:
        """Serve ``interface`` at ``path``."""
        self._connection.export(path, interface)

    def unexport(self, path: str, interface: ServiceInterface) -> None:
        """Stop serving ``interface`` at ``path``."""
        self._connection.unexport(path, interface)

    def answer(self, path: str, interface: str, methods: Signatures, handler: MethodHandler) -> None:
        """Answer calls of these methods of an exported interface: the libraries do not give a method its caller.

        Each call is a task, which ends with the connection. The libraries reject calls of unknown methods or with other
        signatures.
        """

        def handle(message: Any) -> bool:
            if (
                message.message_type is not _CALL
                or message.path != path
                or message.interface not in (interface, None, "")
            ):
                return False
            takes, gives = methods.get(message.member, (None, ""))
            if (message.signature or "") != takes:
                return False
            task = asyncio.ensure_future(self._answer(message, gives, handler))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
            return True

        self._connection.add_message_handler(handle)

    async def _answer(self, message: Any, gives: str, handler: MethodHandler) -> None:
        who = Caller(message.sender or "", bool(message.flags & _INTERACTIVE))
        try:
            reply = Message.new_method_return(message, gives, list(await handler(who, message.member, message.body)))
        except DBusError as error:
            reply = Message.new_error(message, error.type, error.text)
        except asyncio.CancelledError:
            reply = Message.new_error(message, BusError.NO_REPLY, "the service is stopping")
        except Exception:
            _log.exception("method %s", message.member)
            reply = Message.new_error(message, "org.freedesktop.DBus.Error.Failed", "internal error")
        if self._connection is not None and not self.lost.done() and not message.flags & _NO_REPLY:
            self._connection.send(reply)

    def manage_objects(self, path: str) -> None:
        """Make the object at ``path`` the ObjectManager of those that are exported below it from now on."""
        self._connection.manager = path

    def close(self) -> None:
        """Close the connection; ``lost`` is done after it. May be called at any time, repeatedly."""
        connection, self._connection = self._connection, None
        if not self.lost.done():
            self.lost.set_result("the connection to the system bus was closed")
        if self._watch is not None:
            self._watch.cancel()
        for task in self._answers:
            task.cancel()
        if connection is not None:
            _disconnect(connection)

    def _gone(self, watch: asyncio.Future[None]) -> None:
        error = None if watch.cancelled() else watch.exception()
        if not self.lost.done():
            why = f": {_reason(error)}" if isinstance(error, OSError) else ""
            self.lost.set_result(f"the connection to the system bus is gone{why}")


async def connected(address: str | None = None) -> Bus:
    """A new :class:`Bus`, connected; raises :class:`BusError`."""
    bus = Bus()
    await bus.connect(address)
    return bus


def _disconnect(connection: Any) -> None:
    """Close a library connection in any state: both libraries leave the socket open when connect() failed."""
    socket = getattr(connection, "_sock", None)
    if socket is None:
        return
    loop = asyncio.get_running_loop()
    if connection.unique_name and connection.connected:
        connection.disconnect()  # shuts the socket down; the library's reader sees the end and closes it
        return
    with contextlib.suppress(Exception):
        descriptor = socket.fileno()
        if descriptor >= 0:
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)
    with contextlib.suppress(Exception):
        connection._stream.close()
    with contextlib.suppress(Exception):
        socket.close()


def _retrieved(future: asyncio.Future[Any]) -> None:
    """Retrieve a future's exception, which is reported elsewhere, so that asyncio does not log it."""
    if not future.cancelled():
        future.exception()


def _reason(error: BaseException) -> str:
    """An exception as one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
