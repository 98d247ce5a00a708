# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager's configuration files: which files count, in which order, and what they say for a device.

How the values are understood is compared with a real NetworkManager in tests/networkmanager/test_default_flags.py.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nm_mptcp.model.flags import ProfileFlag
from nm_mptcp.model.state import DefaultFlags, Device, DeviceState, DeviceType, Family
from nm_mptcp.networkmanager.defaults import DefaultsReader, NetworkManagerPaths, normalize, read
from nm_mptcp.nmsyntax import keyfile
from nm_mptcp.nmsyntax.keyfile import parse

ETH0 = Device(
    interface="eth0",
    ip_interface="eth0",
    type=DeviceType.ETHERNET,
    state=DeviceState.ACTIVATED,
    type_name="ethernet",
)
SECTION = "[connection-{0}]\nconnection.mptcp-flags={1}\n"

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    places = {
        "lib": "usr/lib/NetworkManager/conf.d",
        "run": "run/NetworkManager/conf.d",
        "etc": "etc/NetworkManager/conf.d",
        "main": "etc/NetworkManager",
    }

    def write(name: str, text: str) -> Path:
        place, _, file = name.partition("/")
        path = tmp_path / places[place] / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def section(tmp_path: Path, version: str = "1.42.4") -> str:
    return read(NetworkManagerPaths().under(tmp_path), version=version).flags(ETH0).section.removeprefix("connection-")


def test_no_files_say_nothing(tmp_path: Path) -> None:
    assert read(NetworkManagerPaths().under(tmp_path)).flags(ETH0) == DefaultFlags(None, "")


def test_priority_is_lib_run_main_etc_from_low_to_high(tmp_path: Path, write: Write) -> None:
    for name, file in (
        ("lib", "lib/90.conf"),
        ("run", "run/50.conf"),
        ("main", "main/NetworkManager.conf"),
        ("etc", "etc/10.conf"),
    ):
        write(file, SECTION.format(name, "0x22"))
        assert section(tmp_path) == name


@pytest.mark.parametrize("place", ["run", "etc"])
def test_a_file_hides_the_same_name_below(tmp_path: Path, write: Write, place: str) -> None:
    write("lib/10-nm-mptcp.conf", SECTION.format("nm-mptcp", 1))
    assert read(NetworkManagerPaths().under(tmp_path)).flags(ETH0) == DefaultFlags(
        ProfileFlag.DISABLED, DefaultFlags.OUR_SECTION
    )
    write(f"{place}/10-nm-mptcp.conf", "")
    assert section(tmp_path) == ""


def test_only_names_that_end_in_conf_count(tmp_path: Path, write: Write) -> None:
    write("etc/10.conf.bak", SECTION.format("x", 1))
    assert section(tmp_path) == ""


def test_files_go_by_name_sections_by_appearance(tmp_path: Path, write: Write) -> None:
    write("etc/10.conf", SECTION.format("a", 2) + SECTION.format("b", 2))
    assert section(tmp_path) == "a"
    write("etc/20.conf", "[connection]\nconnection.mptcp-flags=2\n" + SECTION.format("c", 2) + SECTION.format("d", 2))
    assert section(tmp_path) == "c"


def test_each_property_is_looked_up_by_itself(tmp_path: Path, write: Write) -> None:
    write("etc/10.conf", SECTION.format("a", 2) + "[connection]\nipv4.route-table=7\nipv6.route-table=0x10\n")
    configuration = read(NetworkManagerPaths().under(tmp_path))
    assert (configuration.route_table(ETH0, Family.IPV4), configuration.route_table(ETH0, Family.IPV6)) == (7, 16)


def test_a_snippet_may_be_for_other_versions_the_main_file_not(tmp_path: Path, write: Write) -> None:
    write("main/NetworkManager.conf", SECTION.format("main", 2) + "[.config]\nenable=no\n")
    write("etc/10.conf", SECTION.format("new", 2) + "[.config]\nenable=nm-version-min:1.56\n")
    assert (section(tmp_path), section(tmp_path, "1.58.0")) == ("main", "new")


@pytest.mark.parametrize(
    ("enable", "version", "wanted"),
    [
        ("yes", "1.42.4", True),
        ("False", "1.42.4", False),
        ("nm-version:1.42", "1.42.4", True),
        ("nm-version:1.42.4", "1.42.4", True),
        ("nm-version:1.42.3", "1.42.4", False),
        ("nm-version-min:1.42.3", "1.42.4", True),
        ("nm-version-min:1.40.9", "1.42.4", False),  # only the last number may be larger
        ("nm-version-min:1.40", "1.42.4", True),
        ("nm-version-max:1.42.6", "1.42.4", True),
        ("nm-version-max:1.40", "1.42.4", False),
        ("nm-version-min:1.44,nm-version-min:1.42.2", "1.42.4", True),
        ("except:nm-version:1.42", "1.42.4", False),
        ("except:nm-version:1.40", "1.42.4", True),
        ("except:nm-version:1.42,nm-version-min:1.40", "1.42.4", False),
        ("env:TAG", "1.42.4", False),
        ("except:env:TAG", "1.42.4", True),
        ("nm-version:x", "1.42.4", False),
        ("nm-version:1.42", "", False),
        ("maybe", "1.42.4", False),
    ],
)
def test_for_which_versions_a_snippet_is(tmp_path: Path, write: Write, enable: str, version: str, wanted: bool) -> None:
    write("etc/10.conf", f"[.config]\nenable={enable}\n" + SECTION.format("x", 2))
    assert section(tmp_path, version) == ("x" if wanted else "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], NetworkManagerPaths()),
        (["--no-daemon"], NetworkManagerPaths()),
        (
            ["--config=/a", "--config-dir=/b", "--system-config-dir=/c"],
            NetworkManagerPaths(main=Path("/a"), etc=Path("/b"), system=Path("/c")),
        ),
        (["-n", "--config", "/a", "--config-dir", "/b"], NetworkManagerPaths(main=Path("/a"), etc=Path("/b"))),
        (["--config"], NetworkManagerPaths()),
    ],
)
def test_networkmanagers_own_arguments_name_the_files(arguments: list[str], expected: NetworkManagerPaths) -> None:
    assert NetworkManagerPaths.of(arguments) == expected


@pytest.mark.parametrize(
    ("number", "flags"),
    [
        (0x1, ProfileFlag.DISABLED),
        (0x23, ProfileFlag.DISABLED),
        (0x2, ProfileFlag.ENABLED),
        (0x20, ProfileFlag.ENABLED | ProfileFlag.SUBFLOW),
        (0x10000, ProfileFlag.ENABLED),
        (0x90, ProfileFlag.ENABLED | ProfileFlag.SIGNAL),
        (0x162, ProfileFlag.ENABLED | ProfileFlag.SUBFLOW | ProfileFlag.BACKUP | ProfileFlag.LAMINAR),
    ],
)
def test_any_number_is_made_usable_flags(number: int, flags: ProfileFlag) -> None:
    assert normalize(number) == flags


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a]\nkey\n", "x.conf, line 2: 'key' is neither 'key=value' nor a comment"),
        ("key=1\n", "x.conf, line 1: 'key' is before the first section header"),
        ("\n[a\n", "x.conf, line 2: '[a' is not a section header"),
        ("[a]b\n", "x.conf, line 1: '[a]b' is not a section header"),
        ("[a]b=c\n", "x.conf, line 1: '[a]b' is before the first section header"),
        ("[a]\n=1\n", "x.conf, line 2: '=1' is neither 'key=value' nor a comment"),
    ],
)
def test_a_syntax_error_names_file_and_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="line") as error:
        parse(text, "x.conf")
    assert str(error.value) == problem


def test_comments_space_and_repeated_sections() -> None:
    assert parse("# c\n\n [a] \r\n  k = v w \r\n;x=1\n[b]\n[a]\nk2==\n", "x") == {
        "a": {"k": "v w ", ";x": "1", "k2": "="},
        "b": {},
    }


def test_what_was_read_stays_in_force_when_a_file_breaks(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    defaults = DefaultsReader(root=tmp_path)

    async def refresh() -> str:
        return (await defaults.read(version="1.42.4")).flags(ETH0).section

    write("etc/10.conf", SECTION.format("a", 2))
    assert asyncio.run(refresh()) == "connection-a"
    write("etc/10.conf", "broken")
    assert asyncio.run(refresh()) == "connection-a"
    assert asyncio.run(refresh()) == "connection-a"
    assert len(caplog.messages) == 1
    assert "10.conf, line 1" in caplog.messages[0]
    write("etc/10.conf", SECTION.format("b", 2))
    assert asyncio.run(refresh()) == "connection-b"


def test_a_file_that_cannot_be_read_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    write("etc/10.conf", SECTION.format("a", 2))
    monkeypatch.setattr(keyfile, "contents", refuse)
    asyncio.run(DefaultsReader(root=tmp_path).read(version="1.42.4"))
    (said,) = caplog.messages
    assert ".conf: Permission denied; keeping the defaults read before" in said
    assert "Errno" not in said


def test_files_are_read_again_only_when_they_changed(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    original = keyfile.contents

    def counting(path: Path) -> bytes:
        opened.append(path.name)
        return original(path)

    monkeypatch.setattr(keyfile, "contents", counting)
    defaults = DefaultsReader(root=tmp_path)
    path = write("etc/10.conf", SECTION.format("a", 2))

    def refresh() -> int:
        opened.clear()
        asyncio.run(defaults.read(version="1.42.4"))
        return opened.count("10.conf")

    assert [refresh(), refresh(), refresh()] == [1, 0, 0]
    os.utime(path, (1, 1))
    assert [refresh(), refresh()] == [1, 0]
    path.rename(path.with_name("20.conf"))
    refresh()
    assert opened.count("20.conf") == 1


def test_concurrent_readers_share_one_result(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices that are activated at once: to the second the files had been read when the first had begun to."""
    begun, may_end = threading.Event(), threading.Event()
    original = keyfile.contents

    def slow(path: Path) -> bytes:
        begun.set()
        assert may_end.wait(5)
        return original(path)

    monkeypatch.setattr(keyfile, "contents", slow)
    write("etc/10.conf", SECTION.format("a", 2))

    async def story() -> list[str]:
        defaults = DefaultsReader(root=tmp_path)
        first = asyncio.ensure_future(defaults.read())
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, 5)
        second = asyncio.ensure_future(defaults.read())
        done, _ = await asyncio.wait((second,), timeout=0.05)  # long enough for one that does not wait
        assert not done
        may_end.set()
        return [(await each).flags(ETH0).section for each in (first, second)]

    assert asyncio.run(story()) == ["connection-a", "connection-a"]


def test_a_file_that_could_not_be_read_is_tried_again(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("etc/10.conf", SECTION.format("a", 2))
    original = keyfile.contents

    def busy(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    defaults = DefaultsReader(root=tmp_path)
    monkeypatch.setattr(keyfile, "contents", busy)
    assert asyncio.run(defaults.read()).flags(ETH0).section == ""
    monkeypatch.setattr(keyfile, "contents", original)
    assert asyncio.run(defaults.read()).flags(ETH0).section == "connection-a"
    assert defaults.unread == ""
