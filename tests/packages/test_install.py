# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package on a system with systemd and NetworkManager: installed, upgraded, removed, purged.

The package is the one in ``dist`` (``make deb``); the distributions are those of ``NM_MPTCP_ROOTS`` (trixie). Each system is
booted once and goes through the stories in their order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .. import versions
from ..conftest import saw
from . import variants
from .built import deb
from .container import Container, reason_to_skip
from .system import System
from .talk import Talk, Told, serve
from .witness import Witness, traced

DISTRIBUTIONS = os.environ.get("NM_MPTCP_ROOTS", "trixie").split()

INSTALL = "apt-get -q -y --no-install-recommends install"

NETWORKMANAGER = """\
[main]
no-auto-default=*
dns=none
[device]
managed=1
"""

# Two links into a network of its own; what is beyond it is 192.0.2.1.
LINKS = """
ip netns add far
ip -n far link set lo up
ip -n far address add 192.0.2.1/32 dev lo
ip netns exec far sysctl -qw net.ipv4.ip_forward=1
ip -n far mptcp limits set subflow 8 add_addr_accepted 8
number=0
for link in wire air; do
    number=$((number + 1))
    ip link add $link type veth peer name $link netns far
    ip -n far address add 10.0.$number.1/24 dev $link
    ip -n far link set $link up
    nmcli --terse connection add type ethernet con-name $link ifname $link \
        ipv4.method manual ipv4.addresses 10.0.$number.2/24 ipv4.gateway 10.0.$number.1 \
        ipv4.route-metric $((100 * number)) ipv6.method disabled
    nmcli --terse connection up $link
done
"""

#: Files that differ before and after for reasons that are none of ours: dpkg's and apt's books, logs, caches, states.
NOT_OURS = (
    "/var/lib/dpkg/",
    "/var/lib/apt/",
    "/var/cache/",
    "/var/log/",
    "/var/lib/NetworkManager/",
    "/var/lib/systemd/",
    "/var/tmp/",
)


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def system(request: pytest.FixtureRequest) -> Iterator[Container]:
    """A system with two links up, as NetworkManager alone has them, and the package in /root."""
    if reason := reason_to_skip():
        pytest.skip(reason)
    with Container(request.param) as container:
        container.put(deb(), "/root/nm-mptcp.deb")
        container.put(Path(versions.__file__), "/root/versions.py")
        saw(request.config, json.loads(container.run("python3 /root/versions.py seen")))
        container.run("cat >/etc/NetworkManager/conf.d/test.conf <<'E'\n" + NETWORKMANAGER + "E\nnmcli general reload")
        container.run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0")
        container.run(LINKS)
        container.run(f"{FILES} >/tmp/files.before")
        yield container


FILES = "find / -xdev \\( -path /proc -o -path /sys -o -path /tmp -o -path /root \\) -prune -o -print | sort"


def status(system: System) -> dict[str, Any]:
    return json.loads(system.run("nm-mptcp status --json"))


def paths(system: System) -> dict[str, dict[str, Any]]:
    return {path["profile"]: path for path in status(system)["paths"] if path["profile"] in ("wire", "air")}


def main_process(system: System, unit: str) -> str:
    return system.run(f"systemctl show -p MainPID --value {unit}").strip()


def kernel(system: System) -> dict[str, list[str]]:
    """Endpoints, rules, routes and limits, without the ids that the kernel chooses."""
    return {
        "endpoints": sorted(
            " ".join(word for word in line.split() if not word.isdigit() and word != "id")
            for line in system.run("ip mptcp endpoint show").splitlines()
        ),
        "rules": system.run("ip rule show").splitlines(),
        "routes": sorted(system.run("ip route show table all").splitlines()),
        "limits": system.run("ip mptcp limits show").split(),
        "linkdown": system.run("sysctl -ar 'ignore_routes_with_linkdown'").splitlines(),
    }


def test_installing_starts_the_service_and_leaves_networkmanager_running(system: System) -> None:
    networkmanager = main_process(system, "NetworkManager")
    kernel_before = kernel(system)
    told = system.run(f"{INSTALL} /root/nm-mptcp.deb", seconds=180)
    assert "nm-mptcp" in told
    assert system.run("systemctl is-active nm-mptcp").strip() == "active"
    assert system.run("systemctl is-enabled nm-mptcp").strip() == "enabled"
    assert main_process(system, "NetworkManager") == networkmanager
    assert system.run("systemctl --failed --no-legend").strip() == ""
    log = system.run('journal=$(journalctl -b -o cat -u nm-mptcp); echo "$journal"')
    assert "cannot own the bus name" not in log
    assert "Traceback" not in log
    # Rules and tables are added; NetworkManager's endpoints stay as they are.
    assert kernel(system)["endpoints"] == kernel_before["endpoints"]


def test_the_service_answers_everybody_and_changes_nothing_for_him(system: System) -> None:
    assert status(system)["service"] == "active"
    nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups"
    assert json.loads(system.run(f"{nobody} nm-mptcp status --json"))["service"] == "active"
    for command in ("apply", "clear"):
        assert system.run_quietly(f"{nobody} nm-mptcp {command}").returncode == 1
    assert system.run_quietly(f"{nobody} sh -c 'echo >>/run/nm-mptcp/state.json'").returncode != 0


def test_the_drop_in_is_loaded_and_counts_from_the_next_activation_on(system: System) -> None:
    shown = status(system)
    assert shown["networkmanager"]["default_flags"] == ["disabled"]
    assert shown["networkmanager"]["default_flags_section"] == "connection-nm-mptcp"
    for path in paths(system).values():
        assert path["state"] == "active"
        assert path["owner"] == "networkmanager", path
    system.run("nmcli connection up wire; nmcli connection up air")
    for path in paths(system).values():
        assert (path["state"], path["owner"]) == ("active", "nm-mptcp"), path
        assert path["table"] in range(42000, 43000)
    rules = system.run("ip rule show")
    assert rules.count("proto nm-mptcp") == 8, rules


def test_the_modules_are_compiled_so_that_a_start_writes_nothing(system: System) -> None:
    compiled = "find /usr/lib/nm-mptcp -name '*.pyc' -printf '%p %T@\\n' | sort"
    before = system.run(compiled)
    sources = int(system.run("find /usr/lib/nm-mptcp -name '*.py' | wc -l"))
    assert len(before.splitlines()) == sources
    system.run("nm-mptcp status; nm-mptcp apply; nm-mptcp config >/dev/null")
    assert system.run(compiled) == before


@dataclass(frozen=True)
class Upgrade:
    """What a stream has seen of an upgrade, and of one of another package that the system has as much work with."""

    told: Told
    beside: Told

    def __str__(self) -> str:
        return f"{self.told.longest_gap_ms:.0f} ms, {self.beside.longest_gap_ms:.0f} ms"


def upgraded(system: System, tmp_path: Path, *, every: int = 5) -> Upgrade:
    """The package is upgraded under a stream: no subflow is cut, and nothing that the kernel tells of is changed."""
    for version in (1, 2):
        system.put(variants.bystander(version, tmp_path), f"/root/bystander-{version}.deb")
    system.put(variants.newer(tmp_path), "/root/newer.deb")
    system.run(f"{INSTALL} /root/bystander-1.deb", seconds=180)

    serve(system)
    with Witness(system) as witness, Talk(system, every=every) as talk:
        talk.wait_subflows(*(path["address"] for path in paths(system).values()))
        talk.told()
        system.run(f"{INSTALL} /root/bystander-2.deb", seconds=180)
        beside = talk.goes_on()

        service, before = main_process(system, "nm-mptcp"), state(system, talk, witness)
        talk.told()
        system.run(f"{INSTALL} /root/newer.deb", seconds=180)
        told = talk.goes_on()
        assert main_process(system, "nm-mptcp") != service
        assert system.run("systemctl is-active nm-mptcp").strip() == "active"
        # What is ours is known to the new one, which has looked at it all by now.
        assert {path["owner"] for path in paths(system).values()} == {"nm-mptcp"}
        system.run("sleep 2")
        assert state(system, talk, witness) == before
        assert witness.changes() == []
    system.run("apt-get -q -y purge bystander", seconds=180)
    assert told.back > 100
    return Upgrade(told, beside)


def state(system: System, talk: Talk, witness: Witness) -> dict[str, Any]:
    """All that an upgrade has to leave as it is, and what has happened to it so far."""
    return {
        **kernel(system),
        "ids": system.run("ip mptcp endpoint show"),
        "subflows": talk.subflows(),
        "events": [witness.events(port) for _, port in sorted(talk.subflows())],
    }


def test_upgrading_cuts_no_subflow(system: System, tmp_path: Path) -> None:
    print(
        f"{system.distribution}: longest gap when it is upgraded, and when another package is: {upgraded(system, tmp_path)}"
    )


def test_the_service_of_the_new_package_writes_nothing(system: System) -> None:
    """Nor does NetworkManager: not even what would change nothing."""
    with traced(system) as writes:
        service = main_process(system, "nm-mptcp")
        system.run(f"{INSTALL} --reinstall /root/newer.deb", seconds=180)
        assert main_process(system, "nm-mptcp") != service
        assert {path["owner"] for path in paths(system).values()} == {"nm-mptcp"}
        system.run("sleep 2")
        assert writes() == []
        # Whatever either of them writes is seen.
        system.run("nmcli connection up air")
        assert {"RTM_NEWADDR", "RTM_NEWRULE", "add endpoint"} <= {*writes()}


def test_the_packages_files_are_as_dpkg_knows_them(system: System) -> None:
    assert system.run("dpkg --verify nm-mptcp").strip() == ""
    assert system.run("man -w nm-mptcp nm-mptcp.conf | wc -l").strip() == "2"
    assert system.run("ip route show table nm-mptcp-0").strip() != ""


def test_removing_puts_back_what_was_there(system: System) -> None:
    """Rules, routes and limits at once, NetworkManager's own endpoints from the next activation on."""
    networkmanager = main_process(system, "NetworkManager")
    assert "nm-mptcp" in system.run("ip rule show; ip route show table all")
    told = system.run("apt-get -q -y remove nm-mptcp", seconds=120)
    assert "warning" not in told.lower(), told
    left = kernel(system)
    assert left["endpoints"] == []
    assert not any("32765" in rule or "77" in rule for rule in left["rules"]), left["rules"]
    assert not any("proto 77" in route for route in left["routes"])
    assert system.run_quietly("pgrep -f '[n]m-mptcp daemon'").returncode == 1
    assert system.run_quietly("test -e /run/nm-mptcp -o -e /usr/lib/nm-mptcp").returncode == 1
    assert main_process(system, "NetworkManager") == networkmanager
    system.run("nmcli connection up wire; nmcli connection up air")
    system.wait("test $(ip mptcp endpoint show | wc -l) = 2")
    assert system.run("systemctl --failed --no-legend").strip() == ""


def test_a_removed_package_is_installed_again(system: System) -> None:
    system.run(f"{INSTALL} /root/newer.deb", seconds=180)
    assert system.run("systemctl is-active nm-mptcp").strip() == "active"
    assert paths(system).keys() == {"wire", "air"}


def test_purging_leaves_no_file(system: System) -> None:
    system.run("mkdir -p /etc/nm-mptcp/conf.d /run/nm-mptcp/conf.d")
    system.run("echo '[main]' >/etc/nm-mptcp/conf.d/mine.conf; touch /run/nm-mptcp/conf.d/a.conf")
    system.run("apt-get -q -y purge nm-mptcp", seconds=120)
    system.run(f"{FILES} >/tmp/files.after")
    told = system.run_quietly("diff /tmp/files.before /tmp/files.after").stdout.splitlines()
    left = [line for line in told if line[:2] in ("> ", "< ") and not line[2:].startswith(NOT_OURS)]
    assert left == []
    assert (
        system.run(
            "find / -xdev -path /proc -prune -o -path /sys -prune -o -name '*nm-mptcp*' -print"
            " | grep -v -e ^/root/ -e nm-mptcp-machine -e ^/var/lib/dpkg/ -e ^/var/log/ || true"
        ).strip()
        == ""
    )
    assert system.run_quietly("test -e /run/nm-mptcp").returncode == 1
