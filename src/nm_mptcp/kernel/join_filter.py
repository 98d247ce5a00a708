# SPDX-License-Identifier: GPL-2.0-or-later
"""The packet filter that keeps connections in the tunnel that they began in: a table ``nm-mptcp`` of nftables.

The path manager opens additional subflows by every endpoint, each bound to its own interface, whatever the routes say, and
tells of them only afterwards. So a connection through a tunnel would get subflows beside it, also one whose socket is bound to
the tunnel or marked for it. The filter remembers the peer of each MPTCP connection whose first SYN leaves by a tunnel
(MP_CAPABLE, RFC 8684), and drops joins to that peer (SYN with MP_JOIN) that leave by anything else, and the resets of these
joins when the connection ends. It sees the first packet, when it has its final route. Of connections that a peer began it
remembers the peer by the SYN/ACK.

A peer that is announced an address of a link joins to it from outside, and such a join tells neither peer nor tunnel by which
it could be known. So the filter drops the announcements themselves (ADD_ADDR with its HMAC, not the echo of a peer's; the
kernel sends them in packets without data) that leave by tunnels, not those that are only forwarded.

It exists only while there are tunnels. ``nft`` writes and reads it; a change of the rule set by anybody, such as the reload of
a firewall that flushes all tables, is an event, after which it is read again and restored.
"""

from __future__ import annotations

import asyncio
import errno
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable

from .errors import KernelError
from .netlink import Subscription

_NETFILTER = 12  # NETLINK_NETFILTER
_NFNLGRP_NFTABLES = 7
_RECEIVE_BUFFER = 256 * 1024

TABLE = "nm-mptcp"

#: Seconds that ``nft`` may take.
_TIMEOUT = 10.0

#: The version of the rules below is part of a name, so that a table of another release is replaced.
TUNNELS = "tunnels-2"

#: Stands for IPsec policies among the names of tunnels: no interface has a slash in its name.
IPSEC_NAME = "/ipsec"

#: Among the names of tunnels: addresses may be announced in them.
ANNOUNCED_NAME = "/announced"

#: Among the names of tunnels: the table is not of this release.
OTHER_NAME = "/other"

#: Peers remembered at a time, and seconds after the last connection to one began; joins whose resets are dropped as well.
_PEERS, _REMEMBERED = 65535, 7 * 86400
_HELD_BACK = 600

#: Written so that what ``nft list ruleset`` makes of it can be loaded again: some save all rules that there are.
_RULES = """\
table inet {table} {{
  set {tunnels} {{ type ifname; elements = {{ {names} }} }}
  set peers4 {{ type ipv4_addr; flags dynamic,timeout; size {size}; timeout {timeout}s; {peers4} }}
  set peers6 {{ type ipv6_addr; flags dynamic,timeout; size {size}; timeout {timeout}s; {peers6} }}
  set held4 {{ type ipv4_addr . inet_service . inet_service; flags dynamic,timeout; size {size}; timeout {held}s; }}
  set held6 {{ type ipv6_addr . inet_service . inet_service; flags dynamic,timeout; size {size}; timeout {held}s; }}
  chain remember {{
    update @peers4 {{ ip daddr }}
    update @peers6 {{ ip6 daddr }}
  }}
  chain hold4 {{
    update @held4 {{ ip daddr . tcp sport . tcp dport }}
    counter drop
  }}
  chain hold6 {{
    update @held6 {{ ip6 daddr . tcp sport . tcp dport }}
    counter drop
  }}
  chain announcement {{
    counter drop
  }}
  chain postrouting {{
    type filter hook postrouting priority 300; policy accept;
{announcements}    tcp flags & (syn | rst) == 0 return
    tcp flags & syn == syn oifname @{tunnels} tcp option @30,16,4 0 jump remember
    tcp flags & syn == syn rt ipsec exists tcp option @30,16,4 0 jump remember
    oifname @{tunnels} return
    rt ipsec exists return
    oifname "lo" return
    tcp option @30,16,4 1 ip daddr @peers4 jump hold4
    tcp option @30,16,4 1 ip6 daddr @peers6 jump hold6
    tcp flags & rst == rst ip daddr . tcp sport . tcp dport @held4 counter drop
    tcp flags & rst == rst ip6 daddr . tcp sport . tcp dport @held6 counter drop
  }}
}}
"""

#: Announcements of this machine's own (``iif 0``). The lengths are those with an HMAC: IPv4 and IPv6, without a port and with.
_ANNOUNCEMENTS = """\
    iif 0 oifname @{tunnels} tcp option @30,16,4 3 tcp option @30,8,8 {{ 16, 18, 28, 30 }} jump announcement
    iif 0 rt ipsec exists tcp option @30,16,4 3 tcp option @30,8,8 {{ 16, 18, 28, 30 }} jump announcement
"""


class JoinFilter:
    """Reads and writes the table by ``nft``, which takes some 30 ms; synchronous, but for :meth:`follow`.

    Every method raises :class:`KernelError`: ENOENT if ``nft`` is not installed.
    """

    def __init__(self) -> None:
        self._subscription = Subscription()

    def follow(self, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]) -> None:
        """Call ``on_change`` when the table changed, from now on, also by :meth:`write`; never without nftables."""

        def changed() -> None:
            mine = False
            while (sock := self._subscription.socket) is not None:
                try:
                    mine |= TABLE.encode() in sock.recv(1 << 20)
                except (BlockingIOError, InterruptedError):
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    mine = True
            if mine:
                on_change()

        what = "subscribe to changes of nftables"
        self._subscription.open(
            loop, _NETFILTER, (_NFNLGRP_NFTABLES,), changed, receive_buffer=_RECEIVE_BUFFER, what=what
        )

    def unfollow(self) -> None:
        """End :meth:`follow`."""
        self._subscription.close()

    def tunnels(self) -> frozenset[str]:
        """The names of the tunnels in the table; none: there is no table. :data:`OTHER_NAME`: it is of another release."""
        if found := _elements_of(TUNNELS):
            return frozenset(found)
        return frozenset({OTHER_NAME} if TABLE in _tables() else ())

    def write(self, tunnels: frozenset[str], peers: frozenset[str]) -> None:
        """Have the table for these tunnels, or none without tunnels. ``peers`` are those of connections that began before."""
        script = f"table inet {TABLE}\ndelete table inet {TABLE}\n"
        if tunnels:
            announcements = "" if ANNOUNCED_NAME in tunnels else _ANNOUNCEMENTS.format(tunnels=TUNNELS)
            script += _RULES.format(
                table=TABLE,
                tunnels=TUNNELS,
                announcements=announcements,
                names=", ".join(f'"{name}"' for name in sorted(tunnels)),
                size=_PEERS,
                timeout=_REMEMBERED,
                held=_HELD_BACK,
                peers4=_elements(peer for peer in peers if ":" not in peer),
                peers6=_elements(peer for peer in peers if ":" in peer),
            )
        named = ", ".join(sorted(tunnels - {ANNOUNCED_NAME}))
        what = f"guard the connections through {named}" if tunnels else "delete the table nm-mptcp"
        _nft(what, "-f", "-", script=script)

    def peers(self) -> frozenset[str]:
        """The peers that are remembered."""
        return frozenset((*_elements_of("peers4"), *_elements_of("peers6")))

    def remember(self, peers: frozenset[str]) -> None:
        """Remember these peers as well."""
        self._change("add", peers)

    def forget(self, peers: frozenset[str]) -> None:
        """Forget these peers: no live connection to them began in a tunnel. One that expired meanwhile is no error."""
        # Added first, since one that is not there would fail all.
        self._change("add", peers)
        self._change("delete", peers)

    @staticmethod
    def _change(verb: str, peers: frozenset[str]) -> None:
        lines = [f"{verb} element inet {TABLE} peers{6 if ':' in peer else 4} {{ {peer} }}" for peer in sorted(peers)]
        if lines:
            _nft(f"{verb} peers behind tunnels", "-f", "-", script="\n".join(lines) + "\n")


def _elements_of(name: str) -> list[str]:
    """The elements of one of our sets; none where it is not there."""
    try:
        shown = json.loads(_nft("read the table nm-mptcp", "-j", "list", "set", "inet", TABLE, name))
        (found,) = (each["set"] for each in shown["nftables"] if "set" in each)
        elements = found.get("elem", ())
        # With a timeout an element is an object.
        return [str(each["elem"]["val"] if isinstance(each, dict) else each) for each in elements]
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
    except (ValueError, KeyError, TypeError):
        pass
    return []


def _tables() -> set[str]:
    """The names of the tables of family inet; none where the kernel has no nftables."""
    try:
        shown = json.loads(_nft("list the tables of nftables", "-j", "list", "tables", "inet"))
        return {str(each["table"]["name"]) for each in shown["nftables"] if "table" in each}
    except KernelError as error:
        if error.errno != errno.EINVAL:
            raise
    except (ValueError, KeyError, TypeError):
        pass
    return set()


#: Interface names that can be written in a rule set as they are.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.:@+=-]{1,15}")


def expressible(name: str) -> bool:
    """Whether an interface's name can be an element of the table: not one with a quote or an asterisk."""
    return bool(_PLAIN_NAME.fullmatch(name))


def _elements(peers: Iterable[str]) -> str:
    listed = ", ".join(sorted(peers))
    return f"elements = {{ {listed} }}" if listed else ""


def _nft(what: str, *arguments: str, script: str = "") -> str:
    command = shutil.which("nft", path="/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin")
    if command is None:
        raise KernelError(errno.ENOENT, what, "nft is not installed")
    try:
        done = subprocess.run(
            # A lost link's connections, or those beside a new tunnel, need the processor more.
            ["nice", "-n", "15", command, *arguments], input=script, capture_output=True, timeout=_TIMEOUT, check=False,
            encoding="utf-8", errors="surrogateescape",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(getattr(error, "errno", None) or errno.ETIMEDOUT, what, f"nft: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise KernelError(errno.EINVAL, what, f"nft: {lines[0] if lines else 'no message'}")
    return done.stdout
