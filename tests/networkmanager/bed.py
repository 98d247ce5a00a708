# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with a real dbus-daemon, NetworkManager and dispatcher, in namespaces of its own.

A bed is one tree of processes under ``unshare``: PID, mount, network and UTS namespace; it takes half a second, and when its
first process goes, all goes. Nothing of the machine that it runs on is changed:

* /run, /etc/NetworkManager and /var/lib/NetworkManager are empty tmpfs, and what is written elsewhere below /etc stays in
  the bed; nm-mptcp is not configured, whatever this machine has;
* /sys is read-only (with a writable one and no udev, NetworkManager calls every device strictly unmanaged);
* what ``make install`` installs is laid over /usr and /etc with overlayfs, so that NetworkManager, its dispatcher and the bus
  find it in the places where a package puts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..support.datagrams import Datagrams
from ..support.waits import PATIENCE, wait_for
from .kernel_view import Endpoint, PathManager
from .namespaces import Program, children, die_with_parent, network_of
from .uplinks import Network, Uplink

REPOSITORY = Path(__file__).resolve().parents[2]

SERVER, SERVER6 = "192.0.2.1", "2001:db8:ffff::1"

NEEDED = (
    "unshare", "nsenter", "mount", "ip", "ss", "nft", "dbus-daemon", "dbus-send", "NetworkManager", "nmcli", "dnsmasq", "strace"
)  # fmt: skip

KERNEL = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])

#: What a path has whose flags nobody chose.
DEFAULT_FLAGS = frozenset({"subflow", "laminar"} if KERNEL >= (6, 18) else {"subflow"})

#: What lets programs of a bed measure themselves where `make coverage` runs the tests.
MEASURED = {name: os.environ[name] for name in ("COVERAGE_PROCESS_CONFIG",) if name in os.environ}

#: What the dispatcher scripts ask the service.
SYNC = ("dbus-send", "--system", "--print-reply", "--dest=org.nm_mptcp1", "/org/nm_mptcp1", "org.nm_mptcp1.Sync")

#: How routes and rules of ours are known.
PROTOCOL = "77"

CONFIGURATION = """\
[main]
plugins=keyfile
auth-polkit=false
no-auto-default=*
dns=none
rc-manager=unmanaged
dhcp=internal
hostname-mode=none
[keyfile]
unmanaged-devices=interface-name:hand*;interface-name:ctr*;interface-name:vctr*;interface-name:tun*
[device]
managed=1
[connectivity]
enabled=false
[logging]
level=DEBUG
domains=ALL
"""

# In every network namespace of the bed: no duplicate address detection (a second each) and no reverse-path filter, unless a
# test wants one, whatever this machine has.
SYSCTLS = {
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.dad_transmits": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
}
FAR_SYSCTLS = SYSCTLS | {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv6.conf.all.keep_addr_on_down": "1",
    "net.ipv6.conf.default.keep_addr_on_down": "1",
}


def missing() -> list[str]:
    """What this machine lacks for a bed; empty when all is there."""
    found = [tool for tool in NEEDED if not shutil.which(tool)]
    return found if os.geteuid() == 0 else ["root", *found]


def command() -> list[str]:
    """The ``nm-mptcp`` under test: NM_MPTCP_COMMAND, or that of the virtual environment that pytest runs in."""
    given = os.environ.get("NM_MPTCP_COMMAND")
    return shlex.split(given) if given else [str(Path(sys.prefix, "bin", "nm-mptcp"))]


def _niceness() -> str:
    """The service's, as its unit has it."""
    unit = Path(REPOSITORY, "packaging/systemd/nm-mptcp.service.in").read_text(encoding="utf-8")
    found = re.search(r"^Nice=(.*)$", unit, re.MULTILINE)
    assert found
    return found[1]


class Namespace:
    """A network namespace of the bed, known by a process in it."""

    def __init__(self, bed: Bed, name: str, pid: int, sysctls: Mapping[str, str]) -> None:
        self.bed = bed
        self.name = name
        self.pid = pid
        self.sysctl(**sysctls)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def entering(self) -> list[str]:
        """The command prefix that runs a program here."""
        return ["nsenter", "-t", str(self.bed.init), "-m", "-p", "-u", f"--net=/proc/{self.pid}/ns/net", "--"]

    def run(self, *command: str, check: bool = True, seconds: float = 30, env: Mapping[str, str] | None = None) -> str:
        """Run a command to its end; its standard output. A failure is an AssertionError with all that it said."""
        done = self.attempt(*command, seconds=seconds, env=env)
        if check and done.returncode:
            raise AssertionError(f"{shlex.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def sh(self, script: str) -> str:
        """Run a shell script that ends at its first failure; its standard output."""
        return self.run("sh", "-e", "-c", script)

    def attempt(
        self, *command: str, seconds: float = 30, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is."""
        environment = self.bed.environment | (env or {})
        return subprocess.run(
            [*self.entering, *command],
            capture_output=True,
            text=True,
            timeout=seconds * PATIENCE,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def spawn(self, *command: str, log: str | None = None, env: Mapping[str, str] | None = None) -> Program:
        """Start a program that runs on; it ends with the bed."""
        setting = [f"{name}={value}" for name, value in (self.bed.environment | (env or {})).items()]
        path = self.bed.directory / f"{log or Path(command[0]).name}.log"
        return Program(["env", "-i", *setting, *command], entering=self.entering, log=path)

    def ip(self, *arguments: str) -> list[dict[str, Any]]:
        """``ip -N -j``: what it shows, as values. A table that does not exist is empty."""
        done = self.attempt("ip", "-N", "-j", "-d", *arguments)
        if done.returncode and "does not exist" not in done.stderr:
            raise AssertionError(f"ip {shlex.join(arguments)}: {done.stderr}")
        return [] if done.returncode else json.loads(done.stdout or "[]")

    def sysctl(self, **values: str) -> None:
        """Set sysctls of this network namespace (names with dots: ``sysctl(**{"net.mptcp.enabled": "0"})``)."""
        with network_of(self.pid):
            for name, value in values.items():
                # An interface's own name may have dots, so only the known parts are split.
                Path("/proc/sys", *name.split(".")).write_text(value)

    def read_sysctl(self, name: str) -> str:
        """A sysctl's value in this network namespace."""
        with network_of(self.pid):
            return Path("/proc/sys", *name.split(".")).read_text().strip()

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket that lives here."""
        with network_of(self.pid):
            return socket.socket(family, kind, protocol)


class Bed:
    """The machine under test (``machine``), the world that it is connected to (``far``), and what a person does with it."""

    def __init__(
        self, directory: Path, *, installed: Path, product: bool = True, dropin: bool = True, configuration: str = ""
    ) -> None:
        self.directory = directory
        self.installed = installed
        self.product = product
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": "/root",
            "PYTHONDONTWRITEBYTECODE": "1",
            **MEASURED,
        }
        self.uplinks: dict[str, Uplink] = {}
        self.networks: list[Network] = []
        self.service: Service | None = None
        self._ends: list[Callable[[], None]] = []
        self._path_manager: PathManager | None = None
        self.networkmanager: Program
        self.bus: Program
        self._start(dropin, configuration)

    # --- the machine

    def _start(self, dropin: bool, configuration: str) -> None:
        self._unshare = subprocess.Popen(
            ["unshare", "-n", "-m", "-p", "-u", "-f", "--mount-proc", "--kill-child", "--propagation", "private",
             "sh", "-c", self._first_process()],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=die_with_parent,
        )  # fmt: skip
        assert self._unshare.stdout
        said = self._unshare.stdout.readline()
        if said != "ready\n":
            self._unshare.wait(5)
            raise AssertionError(f"the bed does not start: {said}{self._unshare.stdout.read()}")
        (self.init,) = children(self._unshare.pid)
        self.machine = Namespace(self, "machine", self.init, SYSCTLS)
        self.far = self.namespace("far", FAR_SYSCTLS)
        for address in (f"{SERVER}/32", f"{SERVER6}/128"):
            self.far.run("ip", "address", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
        self.write("/etc/NetworkManager/NetworkManager.conf", CONFIGURATION)
        if configuration:
            self.write("/etc/NetworkManager/conf.d/50-test.conf", configuration)
        self.dropin(dropin)
        self.start_bus()
        self.start_networkmanager()

    def _first_process(self) -> str:
        lines = [
            "set -e",
            "mount -t tmpfs -o mode=755 bed /run",
            "mkdir -p /run/bed/etc /run/bed/work",
            "mount -t overlay -o lowerdir=/etc,upperdir=/run/bed/etc,workdir=/run/bed/work bed /etc",
            "rm -rf /etc/nm-mptcp",
            "for place in /etc/NetworkManager /var/lib/NetworkManager; do mount -t tmpfs -o mode=755 bed $place; done",
            "mount -t sysfs -o ro bed /sys",
            # Retransmissions are traced; a kernel without tracefs has them polled.
            "mount -t tracefs bed /sys/kernel/tracing || true",
            "hostname bed",
            "mkdir -p /run/dbus /run/NetworkManager /etc/NetworkManager/conf.d /etc/NetworkManager/dispatcher.d",
            "mkdir -p -m 700 /etc/NetworkManager/system-connections",
        ]
        lines += [
            f"mount -t overlay -o ro,lowerdir={self.installed}{place}:{place} bed {place}" for place in self._overlaid()
        ]
        # The first process also has to bury the orphans, which a shell that waits for a child does.
        lines += ["echo ready", "while :; do sleep 3600; done"]
        return "\n".join(lines)

    def _overlaid(self) -> list[str]:
        """The directories that both the product and this machine have files in, the outermost of each."""
        if not self.product:
            return []
        places = [
            f"/usr/{place}" for place in ("bin", "sbin", "libexec", "lib/NetworkManager", "share", "lib/iproute2")
        ]
        places.append("/etc/iproute2")
        return [place for place in places if Path(f"{self.installed}{place}").is_dir() and Path(place).is_dir()]

    def namespace(self, name: str, sysctls: Mapping[str, str] = SYSCTLS) -> Namespace:
        """One more network namespace: a container, a hotspot's client, ..."""
        keeper = self.machine.spawn("unshare", "-n", "sleep", "infinity", log=f"namespace-{name}")
        here = os.stat(f"/proc/{self.init}/ns/net").st_ino
        wait_for(f"namespace {name}", lambda: os.stat(f"/proc/{keeper.pid}/ns/net").st_ino != here, every=0.002)
        return Namespace(self, name, keeper.pid, sysctls)

    def inner(self, pid: int) -> int:
        """The number in the bed of a process that pytest knows as ``pid``."""
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
        raise AssertionError(f"no NSpid for {pid}")

    def path(self, inside: str) -> Path:
        """Where pytest finds a file of the bed."""
        return Path(f"/proc/{self.init}/root{inside}")

    def write(self, inside: str, text: str, mode: int = 0o600) -> None:
        """Write a file of the bed, on one of its own file systems and never on this machine's."""
        target = self.path(inside)
        nearest = next(place for place in target.parents if place.is_dir())
        assert nearest.stat().st_dev != Path("/").stat().st_dev, f"{inside} is this machine's own"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def at_end(self, action: Callable[[], None]) -> None:
        """Have something done when the bed ends."""
        self._ends.append(action)

    def stop(self) -> None:
        """End everything, at once; but a service that measures itself writes down what it has run."""
        if MEASURED and self.service:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.service.stop()
        for action in reversed(self._ends):
            with contextlib.suppress(OSError):
                action()
        for network in self.networks:
            network.close()
        if self._path_manager:
            self._path_manager.close()
        self._unshare.kill()
        self._unshare.wait(10)

    # --- bus and NetworkManager

    def start_bus(self) -> None:
        """Start dbus-daemon and the dispatcher's process."""
        self.path("/run/dbus/pid").unlink(missing_ok=True)
        self.bus = self.machine.spawn("dbus-daemon", "--system", "--nofork", "--nopidfile")
        self._wait_for_bus()
        # Newer ones log by GLib, which prints what is not an error on demand alone.
        self.dispatcher = self.machine.spawn(
            *(self._dispatcher_path(), "--persist", "--debug"), log="nm-dispatcher", env={"G_MESSAGES_DEBUG": "all"}
        )

    def _wait_for_bus(self) -> None:
        def answers() -> bool:
            with socket.socket(socket.AF_UNIX) as probe:
                return probe.connect_ex(str(self.path("/run/dbus/system_bus_socket"))) == 0

        wait_for("the bus answers", answers, every=0.005)

    @staticmethod
    def _dispatcher_path() -> str:
        for place in ("/usr/lib/NetworkManager/nm-dispatcher", "/usr/libexec/nm-dispatcher"):
            if Path(place).exists():
                return place
        raise AssertionError("nm-dispatcher is not installed")

    def stop_bus(self) -> None:
        """Stop dbus-daemon and what cannot live without it; NetworkManager is not told."""
        self.bus.stop()
        self.dispatcher.stop(signal.SIGKILL)

    def start_networkmanager(self, *, settled: bool = True) -> None:
        """Start NetworkManager and wait until it answers, and (``settled``) has taken over what it found."""
        self.networkmanager = self.machine.spawn("NetworkManager", "-d")
        enough = ("started",) if settled else ("started", "starting")
        wait_for(
            "NetworkManager has started up",
            lambda: self.attempt_nmcli("-g", "STARTUP", "general", "status").stdout.strip() in enough,
        )

    def stop_networkmanager(self) -> None:
        """Stop NetworkManager the way systemd does; addresses and routes stay."""
        self.networkmanager.stop()

    def dropin(self, present: bool) -> None:
        """Let NetworkManager's next reading find our drop-in, or not (an empty file in /etc masks it)."""
        place = self.path("/etc/NetworkManager/conf.d/10-nm-mptcp.conf")
        if not present:
            place.write_text("")
        elif self.product:
            place.unlink(missing_ok=True)
        else:
            shutil.copy(self.installed / "usr/lib/NetworkManager/conf.d/10-nm-mptcp.conf", place)

    def configure(self, name: str, text: str) -> None:
        """Put a file into NetworkManager's conf.d and make it read its configuration again."""
        self.write(f"/etc/NetworkManager/conf.d/{name}", text)
        self.reload_networkmanager()

    def reload_networkmanager(self) -> None:
        """``nmcli general reload conf``."""
        self.nmcli("general", "reload", "conf")

    def attempt_nmcli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``nmcli``, whatever comes of it."""
        return self.machine.attempt("nmcli", *arguments)

    def nmcli(self, *arguments: str) -> str:
        """``nmcli``; a failure is an error."""
        return self.machine.run("nmcli", *arguments)

    # --- what a person does

    def sh(self, script: str) -> str:
        """Run a shell script on the machine; it has to succeed."""
        return self.machine.sh(script)

    def network(self, name: str, subnet: str | None = None, prefix6: str | None = None) -> Network:
        """A network to plug uplinks into."""
        made = Network(self, name, subnet, prefix6, number=len(self.networks) + 1)
        self.networks.append(made)
        return made

    def uplink(
        self,
        name: str,
        network: Network | None = None,
        *,
        dhcp: str | None = None,
        static: str | None = None,
        ra: str | None = None,
    ) -> Uplink:
        """A network interface with its own network beyond it, or one more on ``network``."""
        if network is None:
            network = self.network(name, dhcp or static, ra)
            if dhcp:
                network.serve_dhcp()
            if ra:
                network.add_router()
        made = Uplink(self, name, network)
        self.uplinks[name] = made
        wait_for(
            f"NetworkManager sees {name}",
            lambda: f"{name}:disconnected" in self.attempt_nmcli("-t", "-f", "DEVICE,STATE", "device").stdout,
        )
        return made

    def profile(self, name: str, device: str, *settings: str, **more: str) -> None:
        """A profile of that name for that device, IPv4 only by default; settings as in nmcli: ``"ipv6.method auto"``."""
        chosen = {"ipv6.method": "disabled", "connection.autoconnect": "no", "connection.interface-name": device}
        chosen |= {name.replace("__", ".").replace("_", "-"): value for name, value in more.items()}
        chosen |= dict(setting.split(" ", 1) for setting in settings)
        words = [word for pair in chosen.items() for word in pair]
        self.nmcli("connection", "add", "type", "ethernet", "connection.id", name, *words)

    def modify(self, name: str, *settings: str) -> None:
        """Change a profile: ``bed.modify("Wi-Fi", "connection.mptcp-flags 0x22")``."""
        self.nmcli("connection", "modify", name, *[word for setting in settings for word in setting.split(" ", 1)])

    def up(self, *names: str) -> None:
        """Bring profiles up, one after the other."""
        for name in names:
            self.nmcli("--wait", "20", "connection", "up", name)

    def down(self, name: str) -> None:
        """Take a profile down."""
        self.nmcli("--wait", "20", "connection", "down", name)

    def reapply(self, device: str) -> None:
        """Make NetworkManager apply the device's profile as it now is."""
        self.nmcli("device", "reapply", device)

    # --- the product

    def nm_mptcp(self, *arguments: str, seconds: float = 30) -> str:
        """``nm-mptcp ...``; a failure is an error."""
        return self.machine.run(*command(), *arguments, seconds=seconds)

    def start_service(
        self, *arguments: str, wait: bool = True, config: str = "", env: Mapping[str, str] | None = None
    ) -> Service:
        """Start ``nm-mptcp daemon`` and wait for its word that it is ready; ``arguments`` go before ``daemon``."""
        self.service = Service(self, *arguments, config=config, env=env)
        if wait:
            self.service.wait_until_ready()
        return self.service

    def sync(self) -> None:
        """Come back when the running service has acted on all that happened so far."""
        done = self.attempt_sync()
        assert done.returncode == 0, f"Sync: {done.stderr}"

    def attempt_sync(self) -> subprocess.CompletedProcess[str]:
        """Ask the service to look again, as the dispatcher scripts do; whatever comes of it."""
        return self.machine.attempt(*SYNC)

    def started_commands(self) -> list[str]:
        """The arguments of each nm-mptcp that the dispatcher scripts have started."""
        log = self.path("/run/nm-mptcp-started")
        return log.read_text().splitlines() if log.exists() else []

    def without_dispatcher_scripts(self) -> None:
        """Mask them, as an administrator would; then only the service acts."""
        for place in ("", "pre-up.d/", "pre-down.d/"):
            mask = self.path(f"/etc/NetworkManager/dispatcher.d/{place}10-nm-mptcp")
            mask.parent.mkdir(exist_ok=True)
            mask.symlink_to("/dev/null")
        self.scripts_are_done()

    def wait_for_dispatcher(self) -> None:
        """Come back when the dispatcher has done its part of NetworkManager's own start."""

        wait_for("the dispatcher began", lambda: ": new request (" in self.dispatcher.output(), every=0.01)
        self.scripts_are_done()

    def scripts_are_done(self) -> None:
        """Come back when the dispatcher has no script left to run."""

        def idle() -> bool:
            log = self.dispatcher.output()
            asked = set(re.findall(r"(req:\d+) '[\w-]+'(?: \[[\w-]*\])?: new request", log))
            return asked == set(re.findall(r"(req:\d+) '[\w-]+'(?: \[[\w-]*\])?: complete", log))

        wait_for("the scripts are done", idle, seconds=20, every=0.01)

    def status(self) -> Status:
        """``nm-mptcp status --json``."""
        return Status(json.loads(self.nm_mptcp("status", "--json")))

    # --- what there is

    @property
    def path_manager(self) -> PathManager:
        """The machine's MPTCP path manager, asked without the product's code."""
        if self._path_manager is None:
            self._path_manager = PathManager(self.machine.pid)
        return self._path_manager

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The machine's MPTCP endpoints."""
        return self.path_manager.endpoints()

    def endpoint(self, address: str) -> Endpoint | None:
        """The endpoint with that address, if there is one."""
        return next((each for each in self.endpoints() if each.address == address), None)

    def wait_endpoint(self, address: str, *, seconds: float = 10) -> Endpoint:
        """Wait for the endpoint with that address."""
        found = wait_for(f"endpoint {address}", lambda: self.endpoint(address), seconds=seconds, every=0.005)
        assert found
        return found

    def wait_no_endpoint(self, address: str, *, seconds: float = 10) -> None:
        """Wait until no endpoint has that address."""
        wait_for(f"no endpoint {address}", lambda: not self.endpoint(address), seconds=seconds, every=0.005)

    def rules(self, address: str | None = None, *, protocol: str | None = None) -> list[dict[str, Any]]:
        """Rules of both families, lowest priority number first; of one source address, or with one protocol number."""
        shown = [rule for family in ("-4", "-6") for rule in self.machine.ip(family, "rule", "show")]
        if address is not None:
            shown = [rule for rule in shown if rule.get("src") == address]
        if protocol is not None:
            shown = [rule for rule in shown if rule.get("protocol") == protocol]
        return sorted(shown, key=lambda rule: int(rule["priority"]))

    def table_of(self, address: str) -> int:
        """The table that the last look-up for this source address is in."""
        found = [int(rule["table"]) for rule in self._last_look_ups(address)]
        assert len(found) == 1, f"rules for {address}: {self.rules(address)}"
        return found[0]

    def routes(self, table: int | str, family: str = "-4") -> list[dict[str, Any]]:
        """The routes of a table."""
        return self.machine.ip(family, "route", "show", "table", str(table))

    def _last_look_ups(self, address: str) -> list[dict[str, Any]]:
        ours = [rule for rule in self.rules(address, protocol=PROTOCOL) if "table" in rule]
        return [rule for rule in ours if "suppress_prefixlen" not in rule]

    def default_of(self, address: str) -> dict[str, Any]:
        """The unicast default route in the table of this source address, waited for."""
        family = "-6" if ":" in address else "-4"

        def look() -> list[dict[str, Any]]:
            return [
                route
                for rule in self._last_look_ups(address)
                for route in self.routes(rule["table"], family)
                if route["dst"] == "default" and route.get("type", "unicast") in ("unicast", "1")
            ]

        return wait_for(f"a default route for {address}", look)[0]

    def footprint(self) -> dict[str, Any]:
        """Everything that the product may have made, to compare before and after."""
        return {
            "rules": self.rules(),
            "tables": [
                route
                for family in ("-4", "-6")
                for route in self.routes("all", family)
                if str(route.get("table", "254")) not in ("local", "255")
            ],
            "endpoints": self.endpoints(),
            "limits": self.path_manager.limits(),
        }

    # --- what to show when a test fails

    def _told_by(self, line: str) -> str:
        try:
            return self.machine.attempt(*line.split(), seconds=5).stdout
        except subprocess.TimeoutExpired:  # NetworkManager, or the bus, is stopped
            return "no answer\n"

    def story(self) -> dict[str, str]:
        """Logs and the state of the machine, for a failed test's report."""
        state = [
            f"$ {line}\n{self._told_by(line)}"
            for line in (
                "ip address",
                "ip rule",
                "ip -6 rule",
                "ip route show table all",
                "ip -6 route show table all",
                "ip mptcp endpoint",
                "ip mptcp limits",
                "nmcli device",
            )
        ]
        told = {"state of the machine": "\n".join(state)}
        for log in sorted(self.directory.glob("*.log")):
            text = log.read_text(errors="replace")
            if log.name.startswith("NetworkManager"):
                text = "\n".join(line for line in text.splitlines() if re.search(r"<(info|warn|error)>|mptcp", line))
            text = "\n".join(line for line in text.splitlines() if "-DEBUG: " not in line)
            if text.strip():
                told[log.name] = text[-6000:]
        return told


class Service:
    """A running ``nm-mptcp daemon``, started as systemd would."""

    def __init__(self, bed: Bed, *arguments: str, config: str = "", env: Mapping[str, str] | None = None) -> None:
        self.bed = bed
        place = Path("/tmp", f"nm-mptcp-notify-{os.getpid()}-{time.monotonic_ns()}")
        self._manager = Datagrams(place)
        self._said: list[str] = []
        bed.at_end(self._manager.close)
        self.program = bed.machine.spawn(
            *("nice", "-n", _niceness()),
            *command(),
            *arguments,
            "daemon",
            *(["--config", config] if config else []),
            log="service",
            env={"NOTIFY_SOCKET": str(place), "WATCHDOG_USEC": "5000000"} | dict(env or {}),
        )

    @property
    def pid(self) -> int:
        """Its process number, as pytest sees it."""
        return self.program.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.program.running

    def notifications(self) -> list[str]:
        """All that it told systemd so far, a line each."""
        for datagram in self._manager.take():
            self._said += datagram.decode().splitlines()
        return self._said

    def wait_until_ready(self) -> None:
        """Wait for READY=1."""

        def ready() -> bool:
            if not self.running:
                raise AssertionError(f"the service ended: {self.log()}")
            return "READY=1" in self.notifications()

        wait_for("the service is ready", ready, every=0.005)

    def log(self) -> str:
        """Its log."""
        return self.program.output()

    def kill(self) -> None:
        """``kill -9``."""
        self.program.stop(signal.SIGKILL)

    def stop(self) -> int:
        """``systemctl stop``."""
        return self.program.stop(signal.SIGTERM)


class Status:
    """What ``nm-mptcp status --json`` said."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    @property
    def paths(self) -> list[dict[str, Any]]:
        """All paths."""
        return self.data["paths"]

    def path(self, address: str) -> dict[str, Any]:
        """The path of that address."""
        found = [path for path in self.paths if path["address"] == address]
        assert len(found) == 1, f"status has {len(found)} paths of {address}: {json.dumps(self.paths, indent=1)}"
        return found[0]
