# SPDX-License-Identifier: GPL-2.0-or-later
"""The TCP sockets that are subflows of MPTCP connections (socket diagnosis, ``ss -ti``): lists and closes them.

Sources: kernel ``inet_diag.h``, ``sock_diag.h``, ``mptcp.h`` (``MPTCP_SUBFLOW_ATTR_*``) and ``net/mptcp/diag.c``.
CAP_NET_ADMIN is needed, without which the kernel does not report which sockets are subflows.
"""

from __future__ import annotations

import enum
import ipaddress
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path as File

from ..model.state import Family
from .netlink import SOCK_DIAG, Message, Requester, attributes

#: The older request, which lists both families at once, as ss(8) does.
GETSOCK = 18
_SOCK_DESTROY = 21
#: The kernel adds ULP information only with the socket's tcp_info.
WITH_INFO = 1 << (2 - 1)
INET_DIAG_INFO = 2
_INET_DIAG_MARK = 15
INET_DIAG_ULP_INFO = 19
INET_ULP_INFO_MPTCP = 3
#: What fails when the sockets cannot be read.
READ = "read the TCP sockets"
_ALL = struct.Struct("=BBBB48xII")
_REQUEST = struct.Struct("=BBBBI")
_ID = struct.Struct("!HH16s16s")
_MESSAGE = struct.Struct("=BBBB48sIIIII")
#: In ``struct tcp_info``: the smoothed round-trip time of the sender and of the receiver (0: none) in microseconds, and the
#: bytes acknowledged and received (since 4.2).
_RTT = struct.Struct("=68xI20xI")
_BYTES = struct.Struct("=120xQQ")
_TOKEN_REMOTE, TOKEN_LOCAL, _SUBFLOW_FLAGS, _ID_REMOTE, _ID_LOCAL = 1, 2, 8, 9, 10


class TCPState(enum.IntEnum):
    """``TCP_*``, the state of a socket (kernel: ``tcp_states.h``)."""

    OTHER = 0
    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12


_TCP_STATES = {int(state): state for state in TCPState}

#: The states of subflows: all but LISTEN, TIME_WAIT, CLOSE and a server's half-open ones.
_STATES = sum(
    1 << state
    for state in (
        TCPState.ESTABLISHED,
        TCPState.SYN_SENT,
        TCPState.SYN_RECV,
        TCPState.FIN_WAIT1,
        TCPState.FIN_WAIT2,
        TCPState.CLOSE_WAIT,
        TCPState.LAST_ACK,
        TCPState.CLOSING,
    )
)


class SubflowFlag(enum.IntFlag):
    """``MPTCP_SUBFLOW_FLAG_*``."""

    MP_CAPABLE_REMOTE = 0x001
    MP_CAPABLE_LOCAL = 0x002
    JOIN_REMOTE = 0x004
    JOIN_LOCAL = 0x008
    BACKUP_REMOTE = 0x010
    BACKUP_LOCAL = 0x020
    FULLY_ESTABLISHED = 0x040
    CONNECTED = 0x080
    MAPVALID = 0x100


_CAP_NET_ADMIN = 12


def may_administer() -> bool:
    """Whether this process has CAP_NET_ADMIN, without which the kernel does not report which sockets are subflows."""
    try:
        status = File("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    held = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) & 1 << _CAP_NET_ADMIN)


@dataclass(frozen=True, slots=True)
class Subflow:
    """A TCP socket that is a subflow of an MPTCP connection."""

    token: int  #: our token of the connection; subflows with the same one are siblings
    family: Family  #: of its packets (IPv4 for an IPv4 peer of an IPv6 socket)
    local: str
    local_port: int
    remote: str
    remote_port: int
    state: TCPState
    flags: SubflowFlag
    local_id: int = 0  #: id of our endpoint, 0 for the initial subflow's address
    remote_id: int = 0
    remote_token: int = 0  #: the peer's, 0 for the initial subflow
    ifindex: int = 0  #: the interface that it is bound to, 0 for none
    inode: int = field(default=0, compare=False)
    cookie: int = 0  #: identifies the socket, also after another has the same addresses and ports
    socket_family: Family = Family.IPV4  #: the socket's own, IPv6 also for an IPv4 peer of an IPv6 socket
    sent: int = field(default=0, compare=False)  #: bytes that the peer acknowledged so far
    received: int = field(default=0, compare=False)  #: bytes so far
    rtt: float = field(
        default=0.0, compare=False
    )  #: smoothed round-trip time in seconds, in the direction of most data
    mark: int = 0  #: SO_MARK

    @property
    def established(self) -> bool:
        """Whether it can carry data: established in TCP, and its join complete."""
        if self.state is not TCPState.ESTABLISHED:
            return False
        return not self.flags & (SubflowFlag.JOIN_LOCAL | SubflowFlag.JOIN_REMOTE) or bool(
            self.flags & SubflowFlag.FULLY_ESTABLISHED
        )

    @property
    def initial(self) -> bool:
        """Whether it is the connection's first subflow."""
        return bool(self.flags & (SubflowFlag.MP_CAPABLE_LOCAL | SubflowFlag.MP_CAPABLE_REMOTE))

    @property
    def backup(self) -> bool:
        """Whether either side has set it to backup."""
        return bool(self.flags & (SubflowFlag.BACKUP_LOCAL | SubflowFlag.BACKUP_REMOTE))


def all_sockets() -> bytes:
    """The body of a :data:`GETSOCK` request for all TCP sockets with data to send or receive; conditions may follow."""
    # One request for both families: for each the kernel walks its whole table of sockets, whosever they are (262,144 buckets
    # on a machine with 24 GiB: 1 to 3 ms), and a lost link's endpoint waits for that.
    return _ALL.pack(socket.AF_UNSPEC, 0, 0, WITH_INFO, _STATES, 0)


class Sockets(Requester):
    """Socket diagnosis: synchronous, for one thread, opened at first use, in that thread's network namespace.

    Every method raises :class:`~nm_mptcp.kernel.errors.KernelError`.
    """

    PROTOCOL = SOCK_DIAG

    def subflows(self) -> tuple[Subflow, ...]:
        """All subflows of live connections; a connection that fell back to TCP has none."""
        return tuple(subflow for subflow in map(_subflow, self.dump()) if subflow is not None)

    def dump(self) -> list[Message]:
        """All TCP sockets with data to send or receive, as the kernel reports them."""
        return self._netlink.dump(GETSOCK, all_sockets(), what=READ)

    def destroy(self, subflow: Subflow) -> None:
        """Close one subflow with a reset; its connection continues on its siblings, and is lost without one.

        Raises :class:`KernelError`: ``absent`` when it is gone already, EOPNOTSUPP without CONFIG_INET_DIAG_DESTROY.
        """
        what = f"close the subflow {subflow.local} port {subflow.local_port} to {subflow.remote}"
        identity = _ID.pack(
            subflow.local_port,
            subflow.remote_port,
            _packed(subflow.local, subflow.socket_family),
            _packed(subflow.remote, subflow.socket_family),
        ) + struct.pack("=IQ", subflow.ifindex, subflow.cookie)
        body = _REQUEST.pack(subflow.socket_family, socket.IPPROTO_TCP, 0, 0, 1 << subflow.state) + identity
        self._netlink.request(_SOCK_DESTROY, 0, body, what=what)


def subflows() -> tuple[Subflow, ...]:
    """All subflows of live connections, by a netlink socket for this request. Raises :class:`KernelError`."""
    with Sockets() as sockets:
        return sockets.subflows()


def destroy(subflow: Subflow) -> None:
    """Close one subflow, by a netlink socket for this request. Raises :class:`KernelError`."""
    with Sockets() as sockets:
        sockets.destroy(subflow)


def _subflow(answer: Message) -> Subflow | None:
    """A socket of the dump; None for one that is not a subflow."""
    attrs = attributes(answer.data, answer.start + _MESSAGE.size, answer.end)
    mptcp = _of_subflow(attrs.get(INET_DIAG_ULP_INFO, b""))
    if mptcp is None:
        return None
    family, state, _timer, _retransmits, identity, _expires, _rqueue, _wqueue, _uid, inode = _MESSAGE.unpack_from(
        answer.data, answer.start
    )
    local_port, remote_port, local, remote = _ID.unpack_from(identity)
    ifindex, cookie = struct.unpack_from("=IQ", identity, _ID.size)
    socket_family = Family(family)
    own, mapped = _text(local, socket_family)
    peer, _ = _text(remote, socket_family)
    info = attrs.get(INET_DIAG_INFO, b"")
    sent, received = _BYTES.unpack_from(info) if len(info) >= _BYTES.size else (0, 0)
    return Subflow(
        token=_number(mptcp, TOKEN_LOCAL, "=I"),
        family=Family.IPV4 if mapped else socket_family,
        local=own,
        local_port=local_port,
        remote=peer,
        remote_port=remote_port,
        state=_TCP_STATES.get(state, TCPState.OTHER),
        flags=SubflowFlag(_number(mptcp, _SUBFLOW_FLAGS, "=I") & sum(SubflowFlag)),
        local_id=_number(mptcp, _ID_LOCAL, "=B"),
        remote_id=_number(mptcp, _ID_REMOTE, "=B"),
        remote_token=_number(mptcp, _TOKEN_REMOTE, "=I"),
        ifindex=ifindex,
        inode=inode,
        cookie=cookie,
        socket_family=socket_family,
        sent=sent,
        received=received,
        rtt=_rtt(info, receiving=received > sent),
        mark=_number(attrs, _INET_DIAG_MARK, "=I"),
    )


def _of_subflow(layer: bytes) -> dict[int, bytes] | None:
    """The attributes of a subflow, by the socket's ``INET_DIAG_ULP_INFO``; None for another kind of socket."""
    inner = attributes(layer, 0, len(layer)).get(INET_ULP_INFO_MPTCP)
    return None if inner is None else attributes(inner, 0, len(inner))


def _rtt(info: bytes, *, receiving: bool) -> float:
    """Seconds. A socket that only receives has as a sender measured nothing but the handshake."""
    if len(info) < _RTT.size:
        return 0.0
    as_sender, as_receiver = _RTT.unpack_from(info)
    return float(as_receiver if receiving and as_receiver else as_sender) / 1e6


def _number(attrs: dict[int, bytes], attribute: int, format_: str) -> int:
    return int(struct.unpack(format_, attrs[attribute])[0]) if attribute in attrs else 0


def _text(packed: bytes, family: Family) -> tuple[str, bool]:
    """An address in text form, and whether it is an IPv4 address in IPv6 form."""
    if family is Family.IPV4:
        return socket.inet_ntop(family, packed[:4]), False
    mapped = ipaddress.IPv6Address(packed).ipv4_mapped
    return (str(mapped), True) if mapped else (socket.inet_ntop(family, packed), False)


def _packed(address: str, family: Family) -> bytes:
    if Family.of(address) is Family.IPV4 and family is Family.IPV6:
        address = f"::ffff:{address}"
    return socket.inet_pton(family, address).ljust(16, b"\0")
