# SPDX-License-Identifier: GPL-2.0-or-later
"""``make demo``: what nm-mptcp does, on a laptop made of namespaces with a real NetworkManager and real traffic.

Nothing of the machine that it runs on is touched: NetworkManager, its bus, the "access point" and the "cell" live in
namespaces that end with this program.
"""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .bench.failover import run_once
from .bench.scenarios import SCENARIOS
from .bench.tools import TOOLS
from .networkmanager.bed import SERVER, Bed, missing
from .networkmanager.product import install
from .networkmanager.uplinks import Uplink
from .support.waits import wait_for

PORT = 5001

#: Each link's speed, and the longest that a picture of the traffic takes.
RATE, PICTURE = "20mbit", 2.0

_BEGIN = time.monotonic()


def say(words: str) -> None:
    """A heading, with the seconds since the start."""
    line = f"[{time.monotonic() - _BEGIN:5.1f} s] {words}"
    print(f"\n\033[1m{line}\033[0m" if sys.stdout.isatty() else f"\n{line}", flush=True)


def show(text: str) -> None:
    """What a command printed."""
    print("\n".join(f"    {line}" for line in text.rstrip().splitlines()), flush=True)


class Download:
    """A download over one MPTCP connection that goes on for as long as the demo; counts the longest silence."""

    def __init__(self, bed: Bed) -> None:
        self._listener = bed.far.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((SERVER, PORT))
        self._listener.listen()
        self._client = bed.machine.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        self._client.settimeout(30)
        self.ended = False
        self.received = 0
        self.longest_silence = 0.0
        threading.Thread(target=self._send, daemon=True).start()
        self._client.connect((SERVER, PORT))
        threading.Thread(target=self._receive, daemon=True).start()

    def _send(self) -> None:
        connection = self._listener.accept()[0]
        try:
            while True:
                connection.sendall(bytes(1 << 16))
        except OSError:
            return

    def _receive(self) -> None:
        last = time.monotonic()
        try:
            while data := self._client.recv(1 << 16):
                now = time.monotonic()
                self.longest_silence = max(self.longest_silence, now - last)
                last = now
                self.received += len(data)
        except OSError:
            pass
        self.ended = True

    def silence_while(self, action: Callable[[], object]) -> float:
        """The longest time without a byte (s) while ``action`` is done."""
        self.longest_silence = 0.0
        action()
        return self.longest_silence


def received(bed: Bed, link: Uplink) -> int:
    """Bytes that came in by a link so far; 0 when it is not there."""
    (shown,) = bed.machine.ip("-s", "link", "show", "dev", link.name)
    return int(shown["stats64"]["rx"]["bytes"])


def picture(bed: Bed, links: dict[str, Uplink]) -> None:
    """How fast each link carries, measured over two seconds."""
    before = {name: received(bed, link) for name, link in links.items()}
    began = time.monotonic()
    time.sleep(PICTURE)  # a speed is bytes over time: there is no state to wait for
    seconds = time.monotonic() - began
    for name, link in links.items():
        rate = (received(bed, link) - before[name]) * 8 / 1e6 / seconds
        print(f"    {name:<9} {rate:5.1f} Mbit/s  {'#' * round(rate)}", flush=True)


def story(bed: Bed) -> None:
    """The demo, step by step."""
    say("A laptop: NetworkManager runs, a Wi-Fi and a cellular modem are there; both give addresses by DHCP.")
    wifi, cell = bed.uplink("wlan0", dhcp="10.1.0.0/24"), bed.uplink("wwan0", dhcp="10.2.0.0/24")
    links = {"Wi-Fi": wifi, "cellular": cell}
    for link in links.values():
        bed.far.run(
            "tc", "qdisc", "add", "dev", link.far_name, "root", "tbf", "rate", RATE, "burst", "64k", "latency", "50ms"
        )
    bed.profile("Wi-Fi", "wlan0", "ipv4.route-metric 600")
    bed.profile("cellular", "wwan0", "ipv4.route-metric 700", "connection.metered yes")
    show("nmcli connection modify cellular connection.metered yes")

    say("The service starts, and NetworkManager brings both connections up. Nobody types an 'ip' command.")
    bed.start_service()
    bed.up("Wi-Fi", "cellular")
    for link in links.values():
        bed.wait_endpoint(link.address)
    show(bed.nm_mptcp("status"))

    say("Each address has a table and rules of its own, so its packets leave by its own link:")
    show(bed.machine.run("sh", "-c", "ip rule | grep nm-mptcp; echo; ip route show table nm-mptcp-0"))

    say("One download over one MPTCP connection. The metered link is joined, but as backup it carries nothing:")
    download = Download(bed)
    wait_for("the second subflow", lambda: _subflows(bed) == 2)
    picture(bed, links)

    say("The user says that the cellular link may carry as well:")
    show("nmcli connection modify cellular connection.mptcp-flags subflow && nmcli device reapply wwan0")
    bed.modify("cellular", "connection.mptcp-flags subflow")
    bed.reapply("wwan0")
    wait_for("the endpoint carries", lambda: (it := bed.endpoint(cell.address)) and "backup" not in it.flags)
    wait_for("the second subflow", lambda: _subflows(bed) == 2)
    show(bed.nm_mptcp("status"))
    picture(bed, links)

    say("Out of the Wi-Fi: the connection is taken down. The download goes on by the cellular link:")
    gap = download.silence_while(lambda: (bed.down("Wi-Fi"), picture(bed, links)))
    show(f"longest silence in the download: {gap * 1000:.0f} ms")

    say("Back in the Wi-Fi: the subflow comes back to the same, still running connection:")
    bed.up("Wi-Fi")
    bed.wait_endpoint(wifi.address)
    wait_for("the subflow by Wi-Fi is back", lambda: _subflows(bed) == 2)
    picture(bed, links)
    assert not download.ended, "the download broke"
    show(f"{download.received / 1e6:.0f} MB over one connection that never broke")

    say("'nm-mptcp clear' gives everything back:")
    show(bed.nm_mptcp("clear"))
    show(bed.machine.run("sh", "-c", "ip rule; ip mptcp endpoint; ip mptcp limits"))


def comparison(directory: Path, installed: Path) -> None:
    """The same loss on two machines that differ in nm-mptcp alone."""
    say("Out of the Wi-Fi all at once (no carrier), in a call with somebody 50 ms away - with nm-mptcp and without:")
    scenario = next(each for each in SCENARIOS if each.name == "carrier")
    for tool in TOOLS:
        if tool.name == "mptcpd":
            continue
        outcome, _ = run_once(scenario, tool, directory / tool.name, installed)
        silent = outcome.figures["longest gap, 40 to 60 ms round-trip"]
        new = outcome.figures["new connection 25 ms later"]
        show(
            f"{tool.title + ':':<28} the call is silent for {'ever' if silent is None else f'{silent:.0f} ms'}, "
            + (
                "who calls anew gets no answer for 5 s"
                if new is None
                else f"who calls anew gets an answer in {new:.0f} ms"
            )
        )


def _subflows(bed: Bed) -> int:
    return len(bed.machine.run("ss", "-Htn", "state", "established", f"dport = :{PORT}").splitlines())


def main() -> int:
    """Run the demo in a bed of its own; 0 when all of it was seen."""
    if lacking := missing():
        print(f"The demo needs {', '.join(lacking)}: try 'sudo make demo'.", file=sys.stderr)
        return 1
    directory = Path(tempfile.mkdtemp(prefix="nm-mptcp-demo-"))
    try:
        installed = install(directory / "root")
        bed = Bed(directory, installed=installed)
        try:
            story(bed)
        except AssertionError as error:
            told = "".join(f"\n--- {title}\n{text}" for title, text in bed.story().items())
            raise AssertionError(f"{error}\n{told}") from error
        finally:
            bed.stop()
        comparison(directory, installed)
    except AssertionError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    say("Done. Everything was in namespaces, and they are gone.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
