# SPDX-License-Identifier: GPL-2.0-or-later
"""Which devices, connections and addresses a section applies to: lists like NetworkManager's device lists.

Pure. An ``except:`` term wins over all others; a list of only ``except:`` terms matches everything else.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from dataclasses import dataclass
from functools import partial
from typing import Self

from ..model.state import Device
from ..nmsyntax.device_match import DeviceMatch, decide, split

_EXCEPT = "except:"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ConnectionTerm:
    """A profile's id (with ``*``, ``?`` and ``[...]`` as in a shell) or UUID."""

    value: str
    tag: str = ""  #: "id", "uuid", or "": either
    negative: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """A term from its text; raises :class:`ValueError` when it can never match."""
        negative, rest = _polarity(text)
        tag, colon, value = rest.partition(":")
        if not colon or tag.lower() not in ("id", "uuid"):
            tag, value = "", rest
        tag, value = tag.lower(), value.strip()
        if not value:
            raise ValueError(f"nothing after '{text.strip()}'")
        if tag == "uuid" and not _UUID.fullmatch(value):
            raise ValueError(f"'{value}' is not a UUID")
        if _unclosed(value):
            raise ValueError(f"'{value}': '[' without ']' (write a literal '[' as '[[]')")
        return cls(value, tag, negative)

    def matches(self, id_: str, uuid: str) -> bool:
        """Whether the term matches this profile, apart from ``except:``."""
        same_uuid = self.tag != "id" and self.value.lower() == uuid.lower() != ""
        return same_uuid or (self.tag != "uuid" and (self.value == id_ or fnmatch.fnmatchcase(id_, self.value)))


@dataclass(frozen=True, slots=True)
class AddressTerm:
    """An address, or a prefix."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    negative: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """A term from its text; raises :class:`ValueError` when it is neither an address nor a prefix."""
        negative, rest = _polarity(text)
        try:
            return cls(ipaddress.ip_network(rest), negative)
        except ValueError:
            pass
        try:
            meant = ipaddress.ip_interface(rest).network
        except ValueError:
            raise ValueError(f"'{rest}' is neither an address nor a prefix (such as 192.0.2.0/24)") from None
        raise ValueError(f"'{rest}' has bits beyond its length (did you mean {meant}?)")

    def matches(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        """Whether the term matches this address, apart from ``except:``."""
        return address in self.network


@dataclass(frozen=True, slots=True)
class Selector:
    """The ``match-`` keys of a section: all that are given must match; without any it applies to every path."""

    device: DeviceMatch | None = None
    connection: tuple[ConnectionTerm, ...] = ()
    address: tuple[AddressTerm, ...] = ()

    def matches(self, device: Device, *, profile_id: str, profile_uuid: str, address: str) -> bool:
        """Whether the section applies to a path with this device, profile and address."""
        if self.device is not None and not self.device.matches(device):
            return False
        if self.connection and not decide(
            [(term.negative, partial(term.matches, profile_id, profile_uuid)) for term in self.connection]
        ):
            return False
        if not self.address:
            return True
        value = ipaddress.ip_address(address)
        return decide([(term.negative, partial(term.matches, value)) for term in self.address])

    def names(self, address: str) -> bool:
        """Whether ``match-address`` names the address, rather than only not excepting it."""
        value = ipaddress.ip_address(address) if self.address else None
        return value is not None and any(not term.negative and term.matches(value) for term in self.address)


def connections(text: str) -> tuple[ConnectionTerm, ...]:
    """``match-connection``; raises :class:`ValueError`."""
    terms = tuple(ConnectionTerm.parse(word) for word in split(text))
    if not terms:
        raise ValueError("is empty: matches no connection ('*' matches every one)")
    return terms


def addresses(text: str) -> tuple[AddressTerm, ...]:
    """``match-address``; raises :class:`ValueError`."""
    terms = tuple(AddressTerm.parse(word) for word in split(text))
    if not terms:
        raise ValueError("is empty: matches no address")
    return terms


def _polarity(text: str) -> tuple[bool, str]:
    negative = text[: len(_EXCEPT)].lower() == _EXCEPT
    return negative, (text[len(_EXCEPT) :] if negative else text).strip()


def _unclosed(pattern: str) -> bool:
    """Whether a ``[`` is never closed: fnmatch reads it literally, which is hardly meant."""
    position = pattern.find("[")
    while position >= 0:
        first = position + (2 if pattern[position + 1 : position + 2] == "!" else 1)
        end = pattern.find("]", first + 1)
        if end < 0:
            return True
        position = pattern.find("[", end)
    return False
