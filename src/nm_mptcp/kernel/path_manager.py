# SPDX-License-Identifier: GPL-2.0-or-later
"""The MPTCP path manager: endpoints and limits (generic netlink family ``mptcp_pm``).

Source: kernel ``Documentation/netlink/specs/mptcp_pm.yaml``. Writes are pyroute2's ``genlmsg`` with attribute types of our
own, since its ``MPTCP`` class has the interface as text, leaves out ids, and has no set-flags; reads do without pyroute2
(see :mod:`.messages`).
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

# Attributes of answers, by number: see netlink.attributes.
_ADDRESS, _RCV_ADD_ADDRS, _SUBFLOWS = 1, 2, 3
_ADDRESS_ID, _ADDRESS_IPV4, _ADDRESS_IPV6, _ADDRESS_PORT, _ADDRESS_FLAGS, _ADDRESS_INTERFACE = 2, 3, 4, 5, 6, 7

_NESTED = 0x8000

#: Generic netlink header, nested address attribute, and in it the id.
_DELETE_BY_ID = struct.Struct("=BBHHHHHB3x")
_DELETE_HEADERS = (_DEL_ADDR, 1, 0, 12, _ADDRESS | _NESTED, 5, _ADDRESS_ID)

#: The maximum of kernels that do not report it (MPTCP_PM_ADDR_MAX up to 6.18).
ENDPOINTS_MAX = 8

#: The highest maximum that is searched for (it is 64 on 7.2), by bisection.
_ENDPOINTS_PROBED = 255


class PathManager(Requester):
    """Endpoints and limits: synchronous, for one thread, opened at first use, in that thread's network namespace.

    Every method raises :class:`~nm_mptcp.kernel.errors.KernelError`, whose text names a kernel without MPTCP.
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
        """Add an endpoint. With id 0 the kernel assigns one, and replaces an implicit endpoint with that address.

        Raises :class:`KernelError`: ``exists``, ``full``, or EINVAL for flags that exclude each other, with the kernel's text.
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
            raise self._distinct(error, endpoint) from None

    def _distinct(self, error: KernelError, endpoint: Endpoint) -> KernelError:
        """The error with the number that newer kernels give: 6.1 answers EINVAL, "too many addresses or duplicate one".

        For a port that is in use it also gets a text, since the kernel's does not name it.
        """
        if endpoint.port and error.errno == errno.EADDRINUSE:
            return KernelError(error.errno, error.what, f"port {endpoint.port} is in use")
        if error.errno != errno.EINVAL or "duplicate" not in error.text:
            return error
        present = self.endpoints()
        # Without an id an implicit endpoint would be replaced, and is not a duplicate.
        duplicates = [other for other in present if endpoint.id or not other.flags & EndpointFlag.IMPLICIT]
        if any((other.address, other.port) == (endpoint.address, endpoint.port) for other in duplicates):
            number = errno.EEXIST
        elif endpoint.id and any(other.id == endpoint.id for other in present):
            number = errno.EBUSY
        else:
            number = errno.ERANGE
        return KernelError(number, error.what, error.text)

    def delete(self, endpoint: Endpoint) -> None:
        """Delete an endpoint by its id. With id 0 the initial subflows on its address are closed instead, and RM_ADDR is
        sent; with a port as well only the one on that port (kernel: ``mptcp_nl_remove_id_zero_address``).

        Returns after an RCU grace period (5 to 15 ms); the subflows are closed before that. Raises :class:`KernelError`:
        ``absent``.
        """
        what = f"delete endpoint {describe(endpoint)}"
        if endpoint.id:
            # Packed by hand: pyroute2 takes half a millisecond, for which a lost link's endpoint would wait.
            self._netlink.request(self._id(what), 0, _DELETE_BY_ID.pack(*_DELETE_HEADERS, endpoint.id), what=what)
        else:
            # Without an interface: id 0 goes by the address alone.
            attrs = [*_place(endpoint), ("MPTCP_PM_ADDR_ATTR_ID", 0)]
            if endpoint.port:
                attrs.append(("MPTCP_PM_ADDR_ATTR_PORT", endpoint.port))
            self._send(_DEL_ADDR, attrs, what)

    def set_flags(self, endpoint: Endpoint, flags: EndpointFlag) -> None:
        """Change an endpoint's flags in place: backup (which sends MP_PRIO) and fullmesh.

        Raises :class:`ValueError` for any other difference, which the kernel would ignore, and :class:`KernelError`.
        """
        if (endpoint.flags ^ flags) & ~CHANGEABLE:
            raise ValueError(f"endpoint {describe(endpoint)}: only backup and fullmesh can be changed")
        what = f"change endpoint {describe(endpoint)}"
        attrs: list[tuple[str, Any]] = [("MPTCP_PM_ADDR_ATTR_FLAGS", int(flags & CHANGEABLE))]
        # By id alone: with a family as well the kernel requires the address, and searches by that.
        attrs += [("MPTCP_PM_ADDR_ATTR_ID", endpoint.id)] if endpoint.id else _place(endpoint)
        try:
            self._send(_SET_FLAGS, attrs, what)
        except KernelError as error:
            # 6.1 answers EINVAL for a missing endpoint, newer kernels ENOENT.
            if error.errno == errno.EINVAL and not any(
                other.id == endpoint.id if endpoint.id else other.place == endpoint.place for other in self.endpoints()
            ):
                raise KernelError(errno.ENOENT, what, error.text) from None
            raise

    def limits(self) -> Limits:
        """The limits in force."""
        what = "read the MPTCP limits"
        for answer in self._netlink.request(self._id(what), 0, _body(_GET_LIMITS, []), what=what):
            attrs = _attributes(answer)
            return Limits(
                subflows=_number(attrs, _SUBFLOWS, "=I"), add_addr_accepted=_number(attrs, _RCV_ADD_ADDRS, "=I")
            )
        raise KernelError(errno.EBADMSG, what, "the kernel sent none")

    def set_limits(self, limits: Limits) -> None:
        """Set both limits. Raises :class:`KernelError`: EINVAL with the kernel's text when one is above its maximum."""
        what = f"set the MPTCP limits to subflows {limits.subflows}, add_addr_accepted {limits.add_addr_accepted}"
        attrs = [
            ("MPTCP_PM_ATTR_RCV_ADD_ADDRS", limits.add_addr_accepted),
            ("MPTCP_PM_ATTR_SUBFLOWS", limits.subflows),
        ]
        self._netlink.request(self._id(what), 0, _body(_SET_LIMITS, attrs), what=what)

    def endpoints_max(self) -> int:
        """The maximum of endpoints and of additional subflows in this kernel; determined without changing anything.

        The kernel checks ``RCV_ADD_ADDRS``, then ``SUBFLOWS``, and sets neither unless both are valid. So with invalid
        subflows it always answers with an error, and the attribute named there shows whether the first was valid. Where it
        names none, or cannot be asked (no CAP_NET_ADMIN, no MPTCP), 8 is assumed.
        """
        if self._allows(ENDPOINTS_MAX) is not True or self._allows(ENDPOINTS_MAX + 1) is not True:
            return ENDPOINTS_MAX
        valid, invalid = ENDPOINTS_MAX + 1, _ENDPOINTS_PROBED + 1
        while invalid - valid > 1:
            middle = (valid + invalid) // 2
            if self._allows(middle):
                valid = middle
            else:
                invalid = middle
        return valid

    def _allows(self, number: int) -> bool | None:
        """Whether this number is valid for a limit; None where the kernel does not report it."""
        what = "determine the maximum of the MPTCP limits"
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
    """An endpoint in words: address, port, id and interface."""
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


def _attributes(answer: Message) -> dict[int, bytes]:
    """The attributes of an answer, behind 4 bytes of generic netlink header."""
    return attributes(answer.data, answer.start + 4, answer.end)


def _number(attrs: dict[int, bytes], attribute: int, format_: str) -> int:
    return int(struct.unpack(format_, attrs[attribute])[0]) if attribute in attrs else 0


def _endpoint(answer: Message) -> Endpoint:
    """An endpoint of a dump. Raises :class:`ValueError`, :class:`struct.error` or :class:`OSError` when it is malformed."""
    inner = _attributes(answer).get(_ADDRESS, b"")
    attrs = attributes(inner, 0, len(inner))
    if _ADDRESS_IPV4 in attrs:
        address = socket.inet_ntop(socket.AF_INET, attrs[_ADDRESS_IPV4])
    elif _ADDRESS_IPV6 in attrs:
        address = socket.inet_ntop(socket.AF_INET6, attrs[_ADDRESS_IPV6])
    else:
        raise ValueError("an endpoint without an address")
    return Endpoint(
        address=address,
        ifindex=_number(attrs, _ADDRESS_INTERFACE, "=i"),
        flags=EndpointFlag(_number(attrs, _ADDRESS_FLAGS, "=I")),
        id=_number(attrs, _ADDRESS_ID, "=B"),
        port=_number(attrs, _ADDRESS_PORT, "=H"),
    )
