# SPDX-License-Identifier: GPL-2.0-or-later
"""One question to the system bus, blocking and without a library: a method that takes a string at most, and answers with one.

For commands that have to be quick: to load asyncio and a D-Bus library, and to connect with them, takes longer than all that
they do otherwise. Everything else goes by :mod:`.dbus.connection`.
Source: the D-Bus specification (SASL EXTERNAL, message protocol 1).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import unquote

from .text import printable

_SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket;unix:path=/var/run/dbus/system_bus_socket"

_CALL, _RETURN, _ERROR = 1, 2, 3
_NO_AUTO_START = 0x2
_BUS = "org.freedesktop.DBus"
#: The serials of our two calls.
_HELLO, _QUESTION = 1, 2
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_FIXED = {"y": (1, "B"), "u": (4, "I"), "h": (4, "I"), "i": (4, "i"), "b": (4, "I"), "q": (2, "H"), "n": (2, "h")}

#: Seconds for the bus to let us in; it does so at once, or is stuck.
TO_BE_LET_IN = 2.0

#: What is longer is no words for a person.
_LONGEST_WORDS = 300

#: A status document is some kilobytes; what is longer than this is none.
_LONGEST = 64 * 1024 * 1024
_LONGEST_LINE = 16384

_ABSENT = frozenset(
    f"org.freedesktop.DBus.Error.{name}"
    for name in ("NameHasNoOwner", "ServiceUnknown", "UnknownMethod", "UnknownObject")
)


class PlainBusError(Exception):
    """The bus, or who was asked, refused or did not answer; one line.

    ``name`` is the name of an error that was answered, ``text`` what was said with it; both "" where nothing was answered.
    All are harmless to a terminal.
    """

    def __init__(self, words: str, name: str = "", text: str = "") -> None:
        super().__init__(printable(words, _LONGEST_WORDS))
        self.name = printable(name, _LONGEST_WORDS)
        self.text = printable(text, _LONGEST_WORDS)


class _Refusal(ValueError):
    """An error as an answer."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name
        self.text = text


def ask(
    destination: str, path: str, interface: str, member: str, argument: str | None = None, *, timeout: float
) -> str | None:
    """Call the method and give its answer; None where there is no bus or nobody of that name on it.

    ``timeout`` (s) is for each step. Raises :class:`PlainBusError`.
    """
    return Question(destination, path, interface, member, argument, timeout=timeout).answer()


class Question:
    """A method that is called at once, and answers when it is asked for the answer: other things are done meanwhile.

    All is sent in one go, so that the bus is waited for once; it takes what follows BEGIN when it gets there.
    """

    def __init__(
        self, destination: str, path: str, interface: str, member: str, argument: str | None = None, *, timeout: float
    ) -> None:
        self._timeout = timeout
        self._whom = f"{member} of {destination}"
        self._connection: socket.socket | None = None
        self._failure: PlainBusError | None = None
        try:
            with self._one_error():
                self._connection = _connected(timeout)
                if self._connection is not None:
                    hello = _call(_HELLO, _BUS, "/org/freedesktop/DBus", _BUS, "Hello")
                    question = _call(_QUESTION, destination, path, interface, member, argument)
                    self._connection.sendall(_introduction() + hello + question)
        except PlainBusError as error:
            self._failure = error

    @property
    def bus(self) -> bool:
        """Whether there is a bus at all."""
        return self._connection is not None or self._failure is not None

    def answer(self) -> str | None:
        """As :func:`ask`, also where the question could not even be put; once."""
        if self._failure is not None:
            raise self._failure
        if self._connection is None:
            return None
        with self._one_error(), self._connection, self._connection.makefile("rb") as said:
            self._connection.settimeout(min(self._timeout, TO_BE_LET_IN))
            try:
                _be_let_in(said)
                _answer(said, _HELLO)
            except TimeoutError:
                raise ValueError("the system bus does not answer") from None
            self._connection.settimeout(self._timeout)
            return _answer(said, _QUESTION)

    @contextlib.contextmanager
    def _one_error(self) -> Iterator[None]:
        try:
            yield
        except _Refusal as error:
            raise PlainBusError(f"{self._whom}: {error}", error.name, error.text) from None
        except (OSError, ValueError, struct.error, LookupError) as error:
            text = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
            raise PlainBusError(f"{self._whom}: {text}") from None


def _connected(timeout: float) -> socket.socket | None:
    """The first address that somebody listens on."""
    for address in (os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _SYSTEM_BUS).split(";"):
        kind, _, rest = address.partition(":")
        keys = dict(part.partition("=")[::2] for part in rest.split(","))
        place = (
            unquote(keys["path"]) if "path" in keys else "\0" + unquote(keys["abstract"]) if "abstract" in keys else ""
        )
        if kind != "unix" or not place:
            continue
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(timeout)
        try:
            connection.connect(place)
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
        except OSError:
            connection.close()
            raise
    return None


def _introduction() -> bytes:
    identity = str(os.geteuid()).encode().hex()
    return f"\0AUTH EXTERNAL {identity}\r\nBEGIN\r\n".encode()


def _be_let_in(said: BinaryIO) -> None:
    line = said.readline(_LONGEST_LINE)
    if not line.endswith(b"\r\n"):
        raise ValueError("the bus closed the connection during authentication")
    if not line.startswith(b"OK "):
        raise ValueError(f"the bus refused us: {line.decode(errors='replace').strip()}")


def _call(serial: int, destination: str, path: str, interface: str, member: str, argument: str | None = None) -> bytes:
    fields = b""
    for code, kind, text in (
        (_PATH, "o", path),
        (_INTERFACE, "s", interface),
        (_MEMBER, "s", member),
        (_DESTINATION, "s", destination),
    ):
        fields += bytes(-len(fields) % 8)
        value = text.encode()
        fields += bytes((code, 1)) + kind.encode() + b"\0" + struct.pack("<I", len(value)) + value + b"\0"
    body = b""
    if argument is not None:
        fields += bytes(-len(fields) % 8) + bytes((_SIGNATURE, 1)) + b"g\0\x01s\0"
        value = argument.encode()
        body = struct.pack("<I", len(value)) + value + b"\0"
    head = struct.pack("<cBBBIII", b"l", _CALL, _NO_AUTO_START, 1, len(body), serial, len(fields)) + fields
    return head + bytes(-len(head) % 8) + body


def _answer(said: BinaryIO, serial: int) -> str | None:
    """The first string of the reply; what comes besides (NameAcquired) is skipped."""
    while True:
        head = _receive(said, 16)
        order = "<" if head[:1] == b"l" else ">"
        kind = head[1]
        body, _serial, length = struct.unpack_from(f"{order}III", head, 4)
        if body + length > _LONGEST:
            raise ValueError("an answer of impossible length")
        fields = _fields(_receive(said, length + (-length % 8))[:length], order)
        data = _receive(said, body)
        if fields.get(_REPLY_SERIAL) != serial:
            continue
        text = ""
        if str(fields.get(_SIGNATURE, "")).startswith("s"):
            (size,) = struct.unpack_from(f"{order}I", data)
            text = data[4 : 4 + size].decode(errors="replace")
        if kind == _RETURN:
            return text
        if kind == _ERROR and fields.get(_ERROR_NAME) in _ABSENT:
            return None
        raise _Refusal(str(fields.get(_ERROR_NAME)), text or "")


def _fields(data: bytes, order: str) -> dict[int, object]:
    """The header fields: structs of a code and a variant, which is never a container in a header."""
    found: dict[int, object] = {}
    offset = 0
    while offset < len(data):
        offset += -offset % 8
        code, size = data[offset], data[offset + 1]
        kind = data[offset + 2 : offset + 2 + size].decode()
        offset += 3 + size
        if kind == "g":
            length = data[offset]
            found[code] = data[offset + 1 : offset + 1 + length].decode()
            offset += 2 + length
        elif kind in ("s", "o"):
            offset += -offset % 4
            (length,) = struct.unpack_from(f"{order}I", data, offset)
            found[code] = data[offset + 4 : offset + 4 + length].decode(errors="replace")
            offset += 5 + length
        else:
            width, format_ = _FIXED[kind]
            offset += -offset % width
            (found[code],) = struct.unpack_from(order + format_, data, offset)
            offset += width
    return found


def _receive(said: BinaryIO, size: int) -> bytes:
    data = said.read(size)
    if len(data) < size:
        raise ValueError("the connection to the system bus was closed")
    return data
