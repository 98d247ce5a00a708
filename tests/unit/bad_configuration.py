# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration files with errors, and the line that reports each (without the file's name in front)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bad:
    """A file that is no good: what is in it, or how it is made, and what is said of it."""

    name: str
    said: str
    text: str | bytes = ""
    make: Callable[[Path], object] | None = None
    for_root_too: bool = True  #: root may read everything

    def put(self, path: Path) -> None:
        """Put it where the configuration is read."""
        if self.make:
            self.make(path)
        else:
            path.write_bytes(self.text if isinstance(self.text, bytes) else self.text.encode())


def main(line: str) -> str:
    return f"[main]\n{line}\n"


def routing(line: str) -> str:
    return f"[routing]\n{line}\n"


def path(line: str) -> str:
    return f"[path-x]\n{line}\n"


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's name may be 107 bytes long
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _unreadable(path: Path) -> None:
    path.write_text("[main]\n")
    path.chmod(0)


_MAIN = "mode, failover, vpn-guard, metered, roaming or limits"
_PATH = (
    "match-device, match-connection, match-address, flags, metered, assume-metered, roaming,"
    " weak-signal, routing, connectivity, silent-links, slot-priority, ipv6-address or signal-port"
)
_SECTIONS = "unknown section; must be [main], [routing] or [path-NAME]"
_WORDS = "subflow, backup, signal, fullmesh, laminar and disabled"
_PERCENT = "must be LEAVE or LEAVE,RETURN: percent from 0 (off) to 100, such as 40,50"
_PRIORITY = (
    "must be an integer from 31768 to 32765: nm-mptcp's rules come after NetworkManager's for WireGuard (to 31767)"
    " and before the main table's (32766)"
)
_TAGS = "(known: except:, type:, mac:, interface-name:, driver:, s390-subchannels:, dhcp-plugin:)"
_PORT = "needs flags with signal and without subflow, in the same section"


def _protocol(number: int, name: str) -> str:
    return (
        f", line 2: [routing] protocol={number}: {number} is '{name}', whose routes nm-mptcp would treat as its own;"
        " must be an integer from 5 to 255 that no other program uses"
    )


BAD = [
    # the file
    Bad("a-directory", ": is a directory, not a file", make=Path.mkdir),
    Bad("a-fifo", ": is a FIFO, not a file", make=os.mkfifo),
    Bad("a-socket", ": cannot be read: No such device or address", make=_socket),
    Bad("a-device", ": is a device, not a file", make=lambda path: path.symlink_to("/dev/zero")),
    Bad("a-symlink-loop", ": cannot be read: Too many levels of symbolic links", make=_loop),
    Bad("a-link-to-nowhere", ": no such file", make=lambda path: path.symlink_to("not-here")),
    Bad("unreadable", ": cannot be read: Permission denied", make=_unreadable, for_root_too=False),
    Bad("too-long", ": is longer than 1 MiB: not a configuration file", "# padding\n" * (1 << 17)),
    Bad("a-line-of-10-MB", ": is longer than 1 MiB: not a configuration file", "x" * 10_000_000),
    # its text
    Bad(
        "byte-order-mark",
        ", line 1: begins with a byte order mark; must be UTF-8 without one",
        b"\xef\xbb\xbf[main]\nmode=auto\n",
    ),
    Bad("utf-16", ", line 1: is not UTF-8: this file is ignored", "[main]\nmode=auto\n".encode("utf-16")),
    Bad("latin-1", ", line 2: is not UTF-8: this file is ignored", b"[main]\nmode=\xe4uto\n"),
    Bad("cut-off-utf-8", ", line 1: is not UTF-8: this file is ignored", b"[main]\xe2\x82"),
    Bad("nul", ", line 2: [main]: has a control character (U+0000)", main("mode=au\0to")),
    Bad("nul-in-a-name", ", line 1: [ma?in]: has a control character (U+0000)", "[ma\0in]\n"),
    Bad("nothing-but-nul", ", line 1: '????????' is neither 'key=value' nor a comment", b"\0" * 8),
    Bad("escape", ", line 2: [main]: has a control character (U+001B)", main("mode=\x1b[31mauto")),
    Bad(
        "carriage-returns-alone", ", line 1: '[main]?mode' is before the first section header", "[main]\rmode=auto\r=1"
    ),
    Bad("binary", ", line 1: is not UTF-8: this file is ignored", bytes(range(255, 0, -1))),
    Bad("json", """, line 1: '{"mode": "auto"}' is neither 'key=value' nor a comment""", '{"mode": "auto"}\n'),
    Bad("yaml", ", line 1: 'main:' is neither 'key=value' nor a comment", "main:\n"),
    Bad("a-very-long-word", f", line 2: [main]: '{'y' * 64}' is neither 'key=value' nor a comment", main("y" * 500)),
    # its lines
    Bad("no-section", ", line 1: 'mode' is before the first section header", "mode=auto\n"),
    Bad("open-header", ", line 1: '[main' is not a section header", "[main\nmode=off\n"),
    Bad("empty-header", ", line 1: '[]' is not a section header", "[]\n"),
    Bad("text-after-header", ", line 1: '[main] # best' is not a section header", "[main] # best\nmode=auto\n"),
    Bad("brackets-twice", ", line 1: '[[main]]' is not a section header", "[[main]]\n"),
    Bad("no-equals", ", line 2: [main]: 'failover' is neither 'key=value' nor a comment", main("failover")),
    Bad("no-key", ", line 2: [main]: '=fast' is neither 'key=value' nor a comment", main("=fast")),
    Bad("colon", ", line 2: [main]: 'mode: auto' is neither 'key=value' nor a comment", main("mode: auto")),
    Bad("semicolon", f", line 2: [main] ;mode=auto: unknown key; must be {_MAIN}", main(";mode=auto")),
    # sections
    Bad("unknown-section", f", line 1: [mian]: {_SECTIONS}", "[mian]\nmode=auto\n"),
    Bad("capitals-section", f", line 1: [Main]: {_SECTIONS}", "[Main]\nmode=auto\n"),
    Bad("space-in-section", f", line 1: [ main ]: {_SECTIONS}", "[ main ]\nmode=auto\n"),
    Bad("path-without-a-name", f", line 1: [path-]: {_SECTIONS}", "[path-]\nflags=backup\n"),
    Bad("path-alone", f", line 1: [path]: {_SECTIONS}", "[path]\nflags=backup\n"),
    Bad("networkmanagers-section", f", line 1: [connection-x]: {_SECTIONS}", "[connection-x]\nmatch-device=*\n"),
    Bad(
        "section-twice",
        ", line 3: [main]: duplicate section (first in line 1)",
        main("mode=auto") + main("failover=fast"),
    ),
    Bad(
        "path-section-twice",
        ", line 3: [path-x]: duplicate section (first in line 1)",
        path("flags=backup") + path("routing=no"),
    ),
    # keys
    Bad("unknown-key", f", line 2: [main] failovr=fast: unknown key; must be {_MAIN}", main("failovr=fast")),
    Bad("capitals-key", f", line 2: [main] Mode=auto: unknown key; must be {_MAIN}", main("Mode=auto")),
    Bad("underscore-key", f", line 2: [main] vpn_guard=yes: unknown key; must be {_MAIN}", main("vpn_guard=yes")),
    Bad("added-key", f", line 2: [path-x] match-device+=*: unknown key; must be {_PATH}", path("match-device+=*")),
    Bad("key-of-another-section", f", line 2: [main] flags=backup: unknown key; must be {_MAIN}", main("flags=backup")),
    Bad("mode-of-a-path", f", line 2: [path-x] mode=off: unknown key; must be {_PATH}", path("mode=off")),
    Bad(
        "networkmanagers-key",
        f", line 2: [path-x] connection.mptcp-flags=1: unknown key; must be {_PATH}",
        path("connection.mptcp-flags=1"),
    ),
    Bad("key-twice", ", line 3: [main] mode=off: duplicate key (first in line 2)", main("mode=auto\nmode=off")),
    # values
    Bad("mode", ", line 2: [main] mode=fast: must be auto, handover, interactive, aggregate or off", main("mode=fast")),
    Bad(
        "mode-in-capitals",
        ", line 2: [main] mode=AUTO: must be auto, handover, interactive, aggregate or off",
        main("mode=AUTO"),
    ),
    Bad("mode-empty", ", line 2: [main] mode=: must be auto, handover, interactive, aggregate or off", main("mode=")),
    Bad(
        "mode-quoted",
        """, line 2: [main] mode="auto": must be auto, handover, interactive, aggregate or off""",
        main('mode="auto"'),
    ),
    Bad(
        "comment-after-value",
        ", line 2: [main] mode=auto # best: must be auto, handover, interactive, aggregate or off",
        main("mode=auto # best"),
    ),
    Bad("failover", ", line 2: [main] failover=quick: must be fast, safe or off", main("failover=quick")),
    Bad("vpn-guard", ", line 2: [main] vpn-guard=maybe: must be yes or no", main("vpn-guard=maybe")),
    Bad("metered", ", line 2: [main] metered=yes: must be backup, exclude or ignore", main("metered=yes")),
    Bad("roaming", ", line 2: [main] roaming=no: must be exclude, backup or ignore", main("roaming=no")),
    Bad("limits", ", line 2: [main] limits=8: must be auto or keep", main("limits=8")),
    Bad("enabled", ", line 2: [routing] enabled=2: must be yes or no", routing("enabled=2")),
    Bad(
        "tables-word",
        ", line 2: [routing] tables=main: must be FIRST-LAST, such as 42000-42999",
        routing("tables=main"),
    ),
    Bad(
        "tables-open",
        ", line 2: [routing] tables=42000-: must be FIRST-LAST, such as 42000-42999",
        routing("tables=42000-"),
    ),
    Bad(
        "tables-negative",
        ", line 2: [routing] tables=-5-10: must be FIRST-LAST, such as 42000-42999",
        routing("tables=-5-10"),
    ),
    Bad(
        "tables-backwards",
        ", line 2: [routing] tables=500-400: must be FIRST-LAST, with FIRST not greater than LAST",
        routing("tables=500-400"),
    ),
    Bad(
        "tables-with-main",
        ", line 2: [routing] tables=200-300: table 253 is 'default'; must be tables that nothing else uses",
        routing("tables=200-300"),
    ),
    Bad(
        "tables-zero",
        ", line 2: [routing] tables=0: table 0 is 'unspec'; must be tables that nothing else uses",
        routing("tables=0"),
    ),
    Bad(
        "tables-too-high",
        ", line 2: [routing] tables=1000-4294967296: must be tables up to 4294967295",
        routing("tables=1000-4294967296"),
    ),
    Bad("rule-priority-word", f", line 2: [routing] rule-priority=first: {_PRIORITY}", routing("rule-priority=first")),
    Bad("rule-priority-low", f", line 2: [routing] rule-priority=31767: {_PRIORITY}", routing("rule-priority=31767")),
    Bad("rule-priority-high", f", line 2: [routing] rule-priority=32766: {_PRIORITY}", routing("rule-priority=32766")),
    Bad("protocol-unspec", _protocol(0, "unspec"), routing("protocol=0")),
    Bad("protocol-kernel", _protocol(2, "kernel"), routing("protocol=2")),
    Bad("protocol-static", _protocol(4, "static"), routing("protocol=4")),
    Bad("protocol-dhcp", _protocol(16, "dhcp"), routing("protocol=16")),
    Bad("protocol-high", ", line 2: [routing] protocol=256: must be an integer from 1 to 255", routing("protocol=256")),
    Bad(
        "protocol-hex", ", line 2: [routing] protocol=0x4d: must be an integer from 1 to 255", routing("protocol=0x4d")
    ),
    Bad(
        "match-device-empty",
        ", line 2: [path-x] match-device=: match is empty: matches no device ('*' matches every one)",
        path("match-device="),
    ),
    Bad(
        "match-device-tag",
        f", line 2: [path-x] match-device=iface:eth0: match 'iface:eth0': unknown tag 'iface:' {_TAGS}",
        path("match-device=iface:eth0"),
    ),
    Bad(
        "match-device-mac",
        ", line 2: [path-x] match-device=mac:wlan0: match 'mac:wlan0': 'wlan0' is not a hardware address",
        path("match-device=mac:wlan0"),
    ),
    Bad(
        "match-device-except",
        ", line 2: [path-x] match-device=except:eth0: match 'except:eth0': 'except:' needs a tag, such as"
        " 'except:interface-name:'",
        path("match-device=except:eth0"),
    ),
    Bad(
        "match-connection-empty",
        ", line 2: [path-x] match-connection=,: is empty: matches no connection ('*' matches every one)",
        path("match-connection=,"),
    ),
    Bad(
        "match-connection-uuid",
        ", line 2: [path-x] match-connection=uuid:Home: 'Home' is not a UUID",
        path("match-connection=uuid:Home"),
    ),
    Bad(
        "match-connection-nothing",
        ", line 2: [path-x] match-connection=except:id:: nothing after 'except:id:'",
        path("match-connection=except:id:"),
    ),
    Bad(
        "match-connection-glob",
        ", line 2: [path-x] match-connection=Home[1: 'Home[1': '[' without ']' (write a literal '[' as '[[]')",
        path("match-connection=Home[1"),
    ),
    Bad(
        "match-address-empty",
        ", line 2: [path-x] match-address=: is empty: matches no address",
        path("match-address="),
    ),
    Bad(
        "match-address-name",
        ", line 2: [path-x] match-address=example.org: 'example.org' is neither an address nor a prefix"
        " (such as 192.0.2.0/24)",
        path("match-address=example.org"),
    ),
    Bad(
        "match-address-bits",
        ", line 2: [path-x] match-address=192.0.2.7/24: '192.0.2.7/24' has bits beyond its length"
        " (did you mean 192.0.2.0/24?)",
        path("match-address=192.0.2.7/24"),
    ),
    Bad(
        "match-address-length",
        ", line 2: [path-x] match-address=192.0.2.0/33: '192.0.2.0/33' is neither an address nor a prefix"
        " (such as 192.0.2.0/24)",
        path("match-address=192.0.2.0/33"),
    ),
    Bad("flags-empty", f", line 2: [path-x] flags=: must be some of {_WORDS}", path("flags=")),
    Bad(
        "flags-number",
        f", line 2: [path-x] flags=0x22: unknown flag '0x22'; must be some of {_WORDS}",
        path("flags=0x22"),
    ),
    Bad(
        "flags-unknown",
        f", line 2: [path-x] flags=subflow,bakcup: unknown flag 'bakcup'; must be some of {_WORDS}",
        path("flags=subflow,bakcup"),
    ),
    Bad(
        "flags-implicit",
        f", line 2: [path-x] flags=implicit: unknown flag 'implicit'; must be some of {_WORDS}",
        path("flags=implicit"),
    ),
    Bad(
        "flags-disabled-and-more",
        ", line 2: [path-x] flags=disabled,subflow: 'disabled' must be alone",
        path("flags=disabled,subflow"),
    ),
    Bad(
        "flags-the-kernel-refuses",
        ", line 2: [path-x] flags=signal fullmesh: the kernel refuses signal and fullmesh together: remove one of them",
        path("flags=signal fullmesh"),
    ),
    Bad("path-metered", ", line 2: [path-x] metered=no: must be backup, exclude or ignore", path("metered=no")),
    Bad("assume-metered", ", line 2: [path-x] assume-metered=guess: must be yes or no", path("assume-metered=guess")),
    Bad("path-roaming", ", line 2: [path-x] roaming=: must be exclude, backup or ignore", path("roaming=")),
    Bad("weak-signal-word", f", line 2: [path-x] weak-signal=off: {_PERCENT}", path("weak-signal=off")),
    Bad("weak-signal-dbm", f", line 2: [path-x] weak-signal=-70,-60: {_PERCENT}", path("weak-signal=-70,-60")),
    Bad("weak-signal-three", f", line 2: [path-x] weak-signal=30,40,50: {_PERCENT}", path("weak-signal=30,40,50")),
    Bad("weak-signal-high", f", line 2: [path-x] weak-signal=30,101: {_PERCENT}", path("weak-signal=30,101")),
    Bad(
        "weak-signal-backwards",
        ", line 2: [path-x] weak-signal=45,30: must be LEAVE,RETURN with RETURN greater than LEAVE, else paths would flap",
        path("weak-signal=45,30"),
    ),
    Bad(
        "weak-signal-zero-and-more",
        ", line 2: [path-x] weak-signal=0,45: 0 (off) must be alone",
        path("weak-signal=0,45"),
    ),
    Bad("path-routing", ", line 2: [path-x] routing=table: must be yes or no", path("routing=table")),
    Bad("connectivity", ", line 2: [path-x] connectivity=full: must be check or ignore", path("connectivity=full")),
    Bad(
        "slot-priority-word",
        ", line 2: [path-x] slot-priority=high: must be an integer from -1000 to 1000",
        path("slot-priority=high"),
    ),
    Bad(
        "slot-priority-fraction",
        ", line 2: [path-x] slot-priority=1.5: must be an integer from -1000 to 1000",
        path("slot-priority=1.5"),
    ),
    Bad(
        "slot-priority-other-digits",
        ", line 2: [path-x] slot-priority=\u0661: must be an integer from -1000 to 1000",
        path("slot-priority=\u0661"),
    ),
    Bad(
        "ipv6-address",
        ", line 2: [path-x] ipv6-address=private: must be stable, temporary or all",
        path("ipv6-address=private"),
    ),
    Bad(
        "signal-port-zero",
        ", line 3: [path-x] signal-port=0: must be an integer from 1 to 65535",
        path("flags=signal\nsignal-port=0"),
    ),
    Bad(
        "signal-port-high",
        ", line 3: [path-x] signal-port=65536: must be an integer from 1 to 65535",
        path("flags=signal\nsignal-port=65536"),
    ),
    Bad("signal-port-alone", f", line 2: [path-x] signal-port=443: {_PORT}", path("signal-port=443")),
    Bad(
        "signal-port-with-subflow",
        f", line 2: [path-x] signal-port=443: {_PORT}",
        path("signal-port=443\nflags=signal,subflow"),
    ),
]
