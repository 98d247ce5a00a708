# SPDX-License-Identifier: GPL-2.0-or-later
"""The MPTCP path manager: endpoints and limits (generic netlink family ``mptcp_pm``).

Source: kernel ``Documentation/netlink/specs/mptcp_pm.yaml``. Messages that write are pyroute2's ``genlmsg`` with attribute
types of our own, since in its ``MPTCP`` the interface is text, ids are easily left out and set-flags is missing; what only
reads does without pyroute2 (see :mod:`.messages`).
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

from ..model.flags import CHANGEABLE, EndpointFlag
from ..model.state import Endpoint, Family, Limits
from . import genl
from .errors import KernelError
from .netlink import GENERIC, Message, Requester, attributes, encoded

_ADD_ADDR, _DEL_ADDR, _GET_ADDR, _SET_LIMITS, _GET_LIMITS, _SET_FLAGS = 1, 2, 3, 5, 6, 7

# What is read is read by number, see netlink.py.
_ADDRESS, _RCV_ADD_ADDRS, _SUBFLOWS = 1, 2, 3
_ADDRESS_ID, _ADDRESS_IPV4, _ADDRESS_IPV6, _ADDRESS_PORT, _ADDRESS_FLAGS, _ADDRESS_INTERFACE = 2, 3, 4, 5, 6, 7

_NESTED = 0x8000

#: The generic header, the nested address, and in it the id.
_DELETE_BY_ID = struct.Struct("=BBHHHHHB3x")
_DELETE_HEADERS = (_DEL_ADDR, 1, 0, 12, _ADDRESS | _NESTED, 5, _ADDRESS_ID)

#: What a kernel allows that does not tell (MPTCP_PM_ADDR_MAX up to 6.18).
ENDPOINTS_MAX = 8

#: The next step that is known to come (64); whatever lies between is found by halving.
_ENDPOINTS_PROBED = 255


class PathManager(Requester):
    """Endpoints and limits: synchronous, for one thread, opened at first use, in that thread's network namespace.

    Everything raises :class:`~nm_mptcp.kernel.errors.KernelError`; a kernel without MPTCP says so in one line.
    """

    PROTOCOL = GENERIC

    def __init__(self) -> None:
        super().__init__()
        self._family: genl.GenericFamily | None = None

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints, in the kernel's order."""
        what = "read the endpoints"
        answers = self._netlink.dump(self._id(what), _body(_GET_ADDR, []), what=what)
        return tuple(_endpoint(answer) for answer in answers)

    def add(self, endpoint: Endpoint) -> None:
        """Add an endpoint; the kernel chooses the id where it is 0 (an implicit endpoint with that address gives way).

        Errors: ``exists``, ``full``, EINVAL for a combination of flags that the kernel refuses, with its own words.
        """
        attrs = [*_place(endpoint), ("MPTCP_PM_ADDR_ATTR_FLAGS", int(endpoint.flags))]
        if endpoint.id:
            attrs.append(("MPTCP_PM_ADDR_ATTR_ID", endpoint.id))
        if endpoint.port:
            attrs.append(("MPTCP_PM_ADDR_ATTR_PORT", endpoint.port))
        if endpoint.ifindex:
            attrs.append(("MPTCP_PM_ADDR_ATTR_IF_IDX", endpoint.ifindex))
        try:
            self._send(_ADD_ADDR, attrs, f"add endpoint {describe(endpoint)}")
        except KernelError as error:
            raise self._told_apart(error, endpoint) from None

    def _told_apart(self, error: KernelError, endpoint: Endpoint) -> KernelError:
        """6.1 answers EINVAL, "too many addresses or duplicate one", where newer kernels tell these apart.

        Of a port the kernel says only that it could not listen there.
        """
        if endpoint.port and error.errno == errno.EADDRINUSE:
            return KernelError(error.errno, error.what, f"port {endpoint.port} is in use")
        if error.errno != errno.EINVAL or "duplicate" not in error.text:
            return error
        there = self.endpoints()
        # An implicit one is no duplicate: it gives way to what has no id of its own.
        firm = [other for other in there if endpoint.id or not other.flags & EndpointFlag.IMPLICIT]
        if any((other.address, other.port) == (endpoint.address, endpoint.port) for other in firm):
            number = errno.EEXIST
        elif endpoint.id and any(other.id == endpoint.id for other in there):
            number = errno.EBUSY
        else:
            number = errno.ERANGE
        return KernelError(number, error.what, error.text)

    def delete(self, endpoint: Endpoint) -> None:
        """Delete an endpoint, by its id. With id 0 the initial subflows that use this address are closed instead, and their
        peers are told; with a port that one alone which leaves from it (``mptcp_nl_remove_id_zero_address``).

        Returns only after an RCU grace period (5 to 15 ms); the subflows are closed before that. Error: ``absent``.
        """
        what = f"delete endpoint {describe(endpoint)}"
        if endpoint.id:
            # Without pyroute2, which takes half a millisecond for it: a lost link's endpoint waits for this one.
            self._netlink.request(self._id(what), 0, _DELETE_BY_ID.pack(*_DELETE_HEADERS, endpoint.id), what=what)
        else:
            # Without its interface: id 0 belongs to the address alone.
            attrs = [*_place(endpoint), ("MPTCP_PM_ADDR_ATTR_ID", 0)]
            if endpoint.port:
                attrs.append(("MPTCP_PM_ADDR_ATTR_PORT", endpoint.port))
            self._send(_DEL_ADDR, attrs, what)

    def set_flags(self, endpoint: Endpoint, flags: EndpointFlag) -> None:
        """Change an endpoint's flags in place. Only backup (told to the peer, MP_PRIO) and fullmesh can be changed;
        any other difference is refused here with :class:`ValueError`, as the kernel would overlook it.
        """
        if (endpoint.flags ^ flags) & ~CHANGEABLE:
            raise ValueError(f"endpoint {describe(endpoint)}: only backup and fullmesh can be changed")
        what = f"change endpoint {describe(endpoint)}"
        attrs: list[tuple[str, Any]] = [("MPTCP_PM_ADDR_ATTR_FLAGS", int(flags & CHANGEABLE))]
        # By id alone: with a family beside it the kernel wants the address too, and looks for that.
        attrs += [("MPTCP_PM_ADDR_ATTR_ID", endpoint.id)] if endpoint.id else _place(endpoint)
        try:
            self._send(_SET_FLAGS, attrs, what)
        except KernelError as error:
            # 6.1 answers EINVAL where newer kernels say that there is no such endpoint.
            if error.errno == errno.EINVAL and not any(
                other.id == endpoint.id if endpoint.id else other.place == endpoint.place for other in self.endpoints()
            ):
                raise KernelError(errno.ENOENT, what, error.text) from None
            raise

    def limits(self) -> Limits:
        """The limits in force."""
        what = "read the MPTCP limits"
        for answer in self._netlink.request(self._id(what), 0, _body(_GET_LIMITS, []), what=what):
            told = _told(answer)
            return Limits(
                subflows=_number(told, _SUBFLOWS, "=I"), add_addr_accepted=_number(told, _RCV_ADD_ADDRS, "=I")
            )
        raise KernelError(errno.EBADMSG, what, "the kernel told none")

    def set_limits(self, limits: Limits) -> None:
        """Set both limits; EINVAL with the kernel's words when one is above its maximum."""
        what = f"set the MPTCP limits to subflows {limits.subflows}, add_addr_accepted {limits.add_addr_accepted}"
        attrs = [
            ("MPTCP_PM_ATTR_RCV_ADD_ADDRS", limits.add_addr_accepted),
            ("MPTCP_PM_ATTR_SUBFLOWS", limits.subflows),
        ]
        self._netlink.request(self._id(what), 0, _body(_SET_LIMITS, attrs), what=what)

    def endpoints_max(self) -> int:
        """How many endpoints (and additional subflows) this kernel allows; asked without changing anything.

        The kernel checks ``RCV_ADD_ADDRS``, then ``SUBFLOWS``, and writes neither unless both are good. So with
        impossible subflows it always refuses, and the attribute that it names tells whether the first was good.
        Where it names none, or may not be asked (no CAP_NET_ADMIN, no MPTCP), it is taken to be 8.
        """
        if self._allows(ENDPOINTS_MAX) is not True or self._allows(ENDPOINTS_MAX + 1) is not True:
            return ENDPOINTS_MAX
        good, bad = ENDPOINTS_MAX + 1, _ENDPOINTS_PROBED + 1
        while bad - good > 1:
            middle = (good + bad) // 2
            if self._allows(middle):
                good = middle
            else:
                bad = middle
        return good

    def _allows(self, number: int) -> bool | None:
        """Whether the kernel takes this number for a limit; None when it does not tell."""
        what = "ask for the greatest MPTCP limit"
        attrs = [("MPTCP_PM_ATTR_RCV_ADD_ADDRS", number), ("MPTCP_PM_ATTR_SUBFLOWS", 0xFFFFFFFF)]
        try:
            self._netlink.request(self._id(what), 0, _body(_SET_LIMITS, attrs), what=what)
        except KernelError as error:
            # Headers of 16 and 4 bytes; the first attribute has 8.
            return {20: False, 28: True}.get(error.attribute or 0) if error.errno == errno.EINVAL else None
        return None

    def _send(self, command: int, attrs: list[tuple[str, Any]], what: str) -> None:
        body = _body(command, [("MPTCP_PM_ATTR_ADDR", {"attrs": attrs}, _NESTED)])
        self._netlink.request(self._id(what), 0, body, what=what)

    def _id(self, what: str) -> int:
        if self._family is None:
            self._family = genl.resolve(self._netlink, genl.MPTCP_PM, what=what)
        return self._family.id


def describe(endpoint: Endpoint) -> str:
    """An endpoint in words: address, port, id, interface by number."""
    words = [endpoint.address]
    if endpoint.port:
        words += ["port", str(endpoint.port)]
    words += ["id", str(endpoint.id)]
    if endpoint.ifindex:
        try:
            words += ["dev", socket.if_indextoname(endpoint.ifindex)]
        except OSError:
            words += ["dev", f"#{endpoint.ifindex}"]
    return " ".join(words)


def _place(endpoint: Endpoint) -> list[tuple[str, Any]]:
    name = "MPTCP_PM_ADDR_ATTR_ADDR4" if endpoint.family is Family.IPV4 else "MPTCP_PM_ADDR_ATTR_ADDR6"
    return [("MPTCP_PM_ADDR_ATTR_FAMILY", int(endpoint.family)), (name, endpoint.address)]


def _body(command: int, attrs: list[Any]) -> bytes:
    if not attrs:
        return struct.pack("=BBH", command, 1, 0)
    from .messages import path_manager_message

    message = path_manager_message()
    message["cmd"] = command
    message["version"] = 1
    message["attrs"] = attrs
    return encoded(message)


def _told(answer: Message) -> dict[int, bytes]:
    """The attributes of an answer, which follow 4 bytes of generic netlink header."""
    return attributes(answer.data, answer.start + 4, answer.end)


def _number(told: dict[int, bytes], attribute: int, format_: str) -> int:
    return int(struct.unpack(format_, told[attribute])[0]) if attribute in told else 0


def _endpoint(answer: Message) -> Endpoint:
    """An endpoint of a dump. Raises ValueError, struct.error or OSError when it is malformed."""
    inner = _told(answer).get(_ADDRESS, b"")
    told = attributes(inner, 0, len(inner))
    if _ADDRESS_IPV4 in told:
        address = socket.inet_ntop(socket.AF_INET, told[_ADDRESS_IPV4])
    elif _ADDRESS_IPV6 in told:
        address = socket.inet_ntop(socket.AF_INET6, told[_ADDRESS_IPV6])
    else:
        raise ValueError("an endpoint without an address")
    return Endpoint(
        address=address,
        ifindex=_number(told, _ADDRESS_INTERFACE, "=i"),
        flags=EndpointFlag(_number(told, _ADDRESS_FLAGS, "=I")),
        id=_number(told, _ADDRESS_ID, "=B"),
        port=_number(told, _ADDRESS_PORT, "=H"),
    )
