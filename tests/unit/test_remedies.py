# SPDX-License-Identifier: GPL-2.0-or-later
"""No remedy is offered that no test has followed; those of our own configuration are followed here."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path as File

import pytest

from nm_mptcp.config.files import ConfigurationFiles
from nm_mptcp.config.settings import Config
from nm_mptcp.engine.signal_hysteresis import SignalHysteresis
from nm_mptcp.model.reasons import Reason, Why
from nm_mptcp.model.state import Connectivity, Egress, Family, Link, Path, State
from nm_mptcp.policy.decide import decide
from nm_mptcp.report.remedies import remedies
from tests.support import followed

from .test_decisions import C, Laptop, W
from .test_policy import path

ROOT = File(__file__).parents[2]
PACKAGE = ROOT / "src/nm_mptcp"

#: What is typed, among all texts of the checks.
COMMAND = re.compile(
    r"ip [a-z]|(nmcli|sysctl|systemctl|kill|rm|mkdir|printf|echo|bpftool|ausearch|dmesg) \S|dmesg$"
    r"|nm-mptcp (apply|config --check)$|NetworkManager --|\{\} (rule|route) "
)


def texts(file: File) -> Iterator[str]:
    """All texts of a module, ``{}`` for what is filled in."""
    tree = ast.parse(file.read_text())
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def offered() -> set[str]:
    """What ``explain`` may offer of an address, by what it is for; what is only looked at aside."""
    found = set()
    for why in Why:
        for state in State:
            for uuid in ("", "u-1"):
                for kind in ("ethernet", "bridge"):
                    one = Path(W, 2, "wlan0", state, Reason(why, "x"), kind=kind, profile=uuid, uuid=uuid)
                    found |= {to for to, _ in [*remedies(one), *remedies(replace(one, flags=one.flags | 4))]}
    return {to for to in found if not to.startswith("see ")}


def test_what_the_checks_offer_was_followed() -> None:
    known = {text for file in (PACKAGE / "checks").glob("*.py") for text in texts(file) if COMMAND.match(text)}
    assert known == followed.CHECKS.keys()


def test_what_explain_offers_was_followed() -> None:
    of_a_destination = set()
    tree = ast.parse((PACKAGE / "report/explain.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            if keys == ["to", "type"] and isinstance(node.values[0], ast.Constant):
                of_a_destination.add(str(node.values[0].value))
    assert of_a_destination
    known = offered() | {to for to in of_a_destination if not to.startswith("see ")}
    assert known == followed.EXPLAIN.keys()


def test_what_status_says_to_type_was_followed() -> None:
    told = " ".join(texts(PACKAGE / "report/health.py"))
    known = set(re.findall(r"'((?:nm-mptcp|sysctl) [^']*)'", told))
    assert known == followed.STATUS.keys()


@pytest.mark.parametrize(
    "test", sorted({*followed.CHECKS.values(), *followed.EXPLAIN.values(), *followed.STATUS.values()})
)
def test_the_tests_are_there(test: str) -> None:
    file, name = test.split("::")
    functions = {
        node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)
    }
    assert name in functions


# --- our own configuration


NAMED = {"uuid": "6ba3a2e9-8a4b-4e0c-9d0c-0c1d3a4f5b60"}


def _metered() -> Laptop:
    return Laptop().wifi(metered=1).wired()


def _held() -> Laptop:
    laptop = Laptop().wifi()
    laptop.standing = True
    return laptop.wired().with_(damped={2: 2.0})


def _tunnelled() -> Laptop:
    laptop = Laptop(egress={Family.IPV4: (Egress(9), Egress(9))}).wifi()
    laptop.links[9] = Link(9, "tun0", "tun")
    return laptop


def _portal() -> Laptop:
    return (
        Laptop().wifi(profile=NAMED, ipv4_connectivity=Connectivity.PORTAL).wired(ipv4_connectivity=Connectivity.FULL)
    )


def _crowded() -> Laptop:
    return Laptop(endpoints_max=1).wifi(profile=NAMED).wired()


def _strange() -> Laptop:
    laptop = Laptop().wifi().wired()
    laptop.address(2, f"{C}/24", by_networkmanager=False)
    return laptop


def _silent() -> Laptop:
    return Laptop().wifi(type_name="wifi").wired().unanswered()


SETTINGS: dict[str, tuple[Callable[[], Laptop], str, Why]] = {
    "ignore metered": (_metered, W, Why.METERED_BACKUP),
    "use it while roaming": (lambda: Laptop().wifi().cellular(roaming=True), C, Why.ROAMING),
    "do not suspend flapping links": (_held, W, Why.HELD_BACK),
    "allow paths outside the tunnel, visible to others": (_tunnelled, W, Why.VPN_GUARD),
    "ignore connectivity on this link": (_portal, W, Why.NO_CONNECTIVITY),
    "prefer it for an endpoint": (_crowded, W, Why.NO_SLOT),
    "make it a path anyway": (_strange, C, Why.NOT_CONFIGURED),
    "use the link although it is silent": (_silent, W, Why.SILENT),
    "ignore the signal strength": (lambda: Laptop().wifi(strength=10, type_name="wifi").wired(), W, Why.WEAK_SIGNAL),
}


def written(tmp_path: File, command: str) -> Config:
    """What the configuration says when that was written into it."""
    found = re.fullmatch(r"in /etc/nm-mptcp/nm-mptcp\.conf: \[(.*?)\], (.*); then systemctl reload nm-mptcp", command)
    assert found, command
    file = tmp_path / "nm-mptcp.conf"
    file.write_text(f"[{found[1]}]\n" + found[2].replace(", ", "\n") + "\n")
    reading = ConfigurationFiles(file).read()
    assert not reading.problems
    return reading.config


def weak(laptop: Laptop, config: Config) -> frozenset[str]:
    """The addresses that the signal is weak for, as the engine finds them."""
    device = laptop.devices["wlan0"]
    assert device.profile
    bound = config.for_path(
        device, profile_id=device.profile.id, profile_uuid=device.profile.uuid, address=W
    ).weak_signal
    strengths = SignalHysteresis()
    strengths.update({("wlan0", bound.value): device.strength}, 0.0)
    return frozenset({W} if ("wlan0", bound.value) in strengths.weak() else ())


@pytest.mark.parametrize("to", SETTINGS)
def test_what_the_configuration_is_said_to_change_it_changes(to: str, tmp_path: File) -> None:
    make, address, why = SETTINGS[to]
    config, laptop = Config(), make()

    def now() -> Path:
        laptop.weak = weak(laptop, config)
        return path(decide(laptop.snapshot(), config), address)

    assert now().reason.why is why
    config = written(tmp_path, dict(remedies(now()))[to])
    assert now().reason.why is not why
