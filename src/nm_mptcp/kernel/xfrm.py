# SPDX-License-Identifier: GPL-2.0-or-later
"""IPsec policies (xfrm): whether an outgoing packet is encrypted, whatever its interface.

Sources: kernel ``linux/xfrm.h`` and ``net/xfrm/xfrm_policy.c`` (``xfrm_policy_match``, ``xfrm_selector_match``). strongSwan,
libreswan and NetworkManager's plugins for them have no interface: a route (strongSwan's in table 220) selects the inner
address as the source, and a policy on that source encrypts.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from ..model.state import Family
from .errors import KernelError
from .netlink import XFRM, Message, Requester, Subscription, attributes, messages

_GETPOLICY = 0x15
#: NEWPOLICY, DELPOLICY, UPDPOLICY, POLEXPIRE, FLUSHPOLICY
_CHANGES = frozenset((0x13, 0x14, 0x19, 0x1B, 0x1D))
#: XFRMNLGRP_EXPIRE, XFRMNLGRP_POLICY
_GROUPS = (2, 4)

_SELECTOR = struct.Struct("!16s16sHHHH")
_SELECTOR_REST = struct.Struct("=HBBBxxxiI")
_REST = 56 + 64 + 32  # struct xfrm_selector, xfrm_lifetime_cfg, xfrm_lifetime_cur
_POLICY = struct.Struct("=IIBBBB")
_INFO = 168  # struct xfrm_userpolicy_info, padded
_TEMPLATE, _TYPE, _MARK, _IF_ID = 5, 16, 21, 31
_TEMPLATE_SIZE, _TEMPLATE_OPTIONAL = 64, 50

_OUT, _ALLOW, _MAIN = 1, 0, 0

#: Receive buffer in bytes: rekeying of all tunnels at once is a few hundred events.
_RECEIVE_BUFFER = 256 * 1024

_MISSING = frozenset((errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES))


@dataclass(frozen=True, slots=True)
class XfrmPolicy:
    """An outgoing policy that may apply to ordinary TCP packets."""

    source: IPv4Network | IPv6Network
    destination: IPv4Network | IPv6Network
    priority: int  #: the matching policy with the lowest applies, of equals the oldest
    encrypts: bool  #: it has a template that must be applied; else packets pass unencrypted
    ifindex: int = 0  #: only by this interface; 0: by any

    def matches(self, source: str, destination: str, ifindex: int) -> bool:
        """Whether its selector matches a packet with these addresses by that interface."""
        return (
            self.ifindex in (0, ifindex)
            and ip_address(destination) in self.destination
            and ip_address(source) in self.source
        )


def encrypted(policies: Iterable[XfrmPolicy], source: str, destination: str, ifindex: int) -> bool:
    """Whether the policy that applies to a packet encrypts it."""
    found = [policy for policy in policies if policy.matches(source, destination, ifindex)]
    return min(found, key=lambda policy: policy.priority).encrypts if found else False


class XfrmPolicies(Requester):
    """The kernel's policies: synchronous, for one thread, opened at first use, in that thread's network namespace."""

    PROTOCOL = XFRM

    def outgoing(self) -> tuple[XfrmPolicy, ...]:
        """The outgoing policies, in the kernel's order; none where it has no IPsec, or access is denied.

        Raises :class:`KernelError`.
        """
        try:
            answers = self._netlink.dump(_GETPOLICY, b"", what="read the IPsec policies")
        except KernelError as error:
            if error.errno in _MISSING:
                return ()
            raise
        return tuple(policy for policy in map(parse, answers) if policy is not None)


class XfrmPolicyEvents:
    """Calls ``on_change`` when policies may have changed; never where the kernel has no IPsec."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._subscription = Subscription()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Subscribe, in the network namespace of this thread. Raises :class:`KernelError`."""
        what = "subscribe to the kernel's IPsec events"
        try:
            self._subscription.open(loop, XFRM, _GROUPS, self._read, receive_buffer=_RECEIVE_BUFFER, what=what)
        except KernelError as error:
            if error.errno not in _MISSING:
                raise

    def close(self) -> None:
        """Unsubscribe."""
        self._subscription.close()

    def _read(self) -> None:
        changed = False
        while (sock := self._subscription.socket) is not None:
            try:
                data, sender = sock.recvfrom(65536)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                changed = True
                continue
            try:
                changed |= sender[0] == 0 and any(message.type in _CHANGES for message in messages(data))
            except ValueError:
                changed = True
        if changed:
            self._on_change()


def parse(message: Message) -> XfrmPolicy | None:
    """A policy of a dump; None for one that does not apply to ordinary outgoing TCP packets: of another direction, of a
    socket, or for other protocols, ports, marks and xfrm interfaces (these have routes).

    Raises :class:`ValueError`, :class:`struct.error` or :class:`OSError` when it is malformed.
    """
    data, start = message.data, message.start
    destination, source, _, to_ports, _, from_ports = _SELECTOR.unpack_from(data, start)
    family, to_length, from_length, protocol, ifindex, _ = _SELECTOR_REST.unpack_from(data, start + _SELECTOR.size)
    priority, _, direction, action, _, _ = _POLICY.unpack_from(data, start + _REST)
    attrs = attributes(data, start + _INFO, message.end)
    mark, mask = struct.unpack_from("=II", attrs[_MARK]) if _MARK in attrs else (0, 0)
    if (
        direction != _OUT
        or action != _ALLOW
        or family not in tuple(Family)
        or to_ports
        or from_ports
        or protocol not in (0, socket.IPPROTO_TCP)
        or mark & mask
        or (attrs.get(_TYPE) or b"\0")[0] != _MAIN
        or any(attrs.get(_IF_ID, b""))
    ):
        return None
    templates = attrs.get(_TEMPLATE, b"")
    return XfrmPolicy(
        source=_network(Family(family), source, from_length),
        destination=_network(Family(family), destination, to_length),
        priority=priority,
        encrypts=any(
            not templates[offset + _TEMPLATE_OPTIONAL]
            for offset in range(0, len(templates) - _TEMPLATE_SIZE + 1, _TEMPLATE_SIZE)
        ),
        ifindex=ifindex,
    )


def _network(family: Family, packed: bytes, length: int) -> IPv4Network | IPv6Network:
    return ip_network((packed[: family.bits // 8], length), strict=False)
