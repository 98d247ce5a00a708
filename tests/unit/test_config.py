# SPDX-License-Identifier: GPL-2.0-or-later
"""nm-mptcp.conf: the values of its files, which file wins, and the errors."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nm_mptcp.cli import main
from nm_mptcp.config.files import PATHS, ConfigError, ConfigurationFiles
from nm_mptcp.config.keys import KEYS, PATH
from nm_mptcp.config.settings import (
    Config,
    ConnectivityPolicy,
    Failover,
    IPv6Address,
    LimitsPolicy,
    MeteredPolicy,
    PathOptions,
    RoamingPolicy,
    RoutingOptions,
    Setting,
    WeakSignal,
)
from nm_mptcp.model.flags import ProfileFlag
from nm_mptcp.model.state import Device, DeviceState, DeviceType, Mode

from .bad_configuration import BAD, Bad

Write = Callable[[str, str], Path]

UUID = "0f0f0f0f-1111-2222-3333-444444444444"

PHONE = Device(
    interface="enx0",
    ip_interface="enx0",
    type=DeviceType.ETHERNET,
    state=DeviceState.ACTIVATED,
    driver="ipheth",
    type_name="ethernet",
)

PLACES = {
    "lib": "usr/lib/nm-mptcp/conf.d",
    "run": "run/nm-mptcp/conf.d",
    "main": "etc/nm-mptcp",
    "etc": "etc/nm-mptcp/conf.d",
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        place, _, file = name.partition("/")
        path = tmp_path / PLACES[place] / (file or "nm-mptcp.conf")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def source(tmp_path: Path) -> ConfigurationFiles:
    return ConfigurationFiles(paths=PATHS.under(tmp_path))


def of(text: str, tmp_path: Path) -> Config:
    file = tmp_path / "nm-mptcp.conf"
    file.write_text(text)
    return ConfigurationFiles(file).load()


def options(config: Config, *, id_: str = "Home", uuid: str = UUID, address: str = "192.0.2.7") -> PathOptions:
    return config.for_path(PHONE, profile_id=id_, profile_uuid=uuid, address=address)


# --- what a file says ---


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("", Config()),
        ("# nothing\n\n  # here\n", Config()),
        ("[main]\n", Config()),
        ("[main]\nmode=handover\n", Config(mode=Mode.HANDOVER)),
        ("[main]\n mode = aggregate \n", Config(mode=Mode.AGGREGATE)),
        ("[main]\r\nmode=off\r\n", Config(mode=Mode.OFF)),
        ("[main]\nfailover=safe\n", Config(failover=Failover.SAFE)),
        ("[main]\nvpn-guard=no", Config(vpn_guard=False)),
        ("[main]\nvpn-guard=true", Config()),
        (
            "[main]\nmetered=ignore\nroaming=backup\n",
            Config(metered=MeteredPolicy.IGNORE, roaming=RoamingPolicy.BACKUP),
        ),
        ("[main]\nlimits=keep\n", Config(limits=LimitsPolicy.KEEP)),
        ("[routing]\nenabled=no\n", Config(routing=RoutingOptions(enabled=False))),
        ("[routing]\ntables=500-600\n", Config(routing=RoutingOptions(tables=range(500, 601)))),
        ("[routing]\ntables = 500 - 600\n", Config(routing=RoutingOptions(tables=range(500, 601)))),
        ("[routing]\ntables=500\n", Config(routing=RoutingOptions(tables=range(500, 501)))),
        (
            "[routing]\nrule-priority=31768\nprotocol=200\n",
            Config(routing=RoutingOptions(rule_priority=31768, protocol=200)),
        ),
        (
            "[routing]\nrule-priority=32762\nprotocol=5\n",
            Config(routing=RoutingOptions(rule_priority=32762, protocol=5)),
        ),
    ],
)
def test_values_of_main_and_routing(text: str, config: Config, tmp_path: Path) -> None:
    assert of(text, tmp_path) == config


SUBFLOW_BACKUP = ProfileFlag.ENABLED | ProfileFlag.SUBFLOW | ProfileFlag.BACKUP


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags=subflow,backup", {"flags": SUBFLOW_BACKUP}),
        ("flags=backup subflow", {"flags": SUBFLOW_BACKUP}),
        ("flags=Subflow,  BACKUP,", {"flags": SUBFLOW_BACKUP}),
        ("flags=signal", {"flags": ProfileFlag.ENABLED | ProfileFlag.SIGNAL}),
        (
            "flags=fullmesh,subflow,laminar",
            {"flags": ProfileFlag.ENABLED | ProfileFlag.FULLMESH | ProfileFlag.SUBFLOW | ProfileFlag.LAMINAR},
        ),
        ("flags=disabled", {"flags": ProfileFlag.DISABLED}),
        ("metered=exclude", {"metered": MeteredPolicy.EXCLUDE}),
        ("assume-metered=no", {"assume_metered": False}),
        ("roaming=ignore", {"roaming": RoamingPolicy.IGNORE}),
        ("weak-signal=0", {"weak_signal": WeakSignal(0, 0)}),
        ("weak-signal=20", {"weak_signal": WeakSignal(20, 30)}),
        ("weak-signal=20, 50", {"weak_signal": WeakSignal(20, 50)}),
        ("weak-signal=95", {"weak_signal": WeakSignal(95, 100)}),
        ("routing=no", {"routing": False}),
        ("connectivity=ignore", {"connectivity": ConnectivityPolicy.IGNORE}),
        ("slot-priority=-3", {"slot_priority": -3}),
        ("ipv6-address=all", {"ipv6_address": IPv6Address.ALL}),
        ("flags=signal\nsignal-port=443", {"flags": ProfileFlag.ENABLED | ProfileFlag.SIGNAL, "signal_port": 443}),
    ],
)
def test_values_of_a_path_section(line: str, expected: dict[str, Any], tmp_path: Path) -> None:
    said = options(of(f"[path-x]\n{line}\n", tmp_path))
    assert said == PathOptions(**{name: Setting(value) for name, value in expected.items()})
    for name in expected:
        origin = getattr(said, name).origin
        assert (origin.section, origin.file) == ("path-x", str(tmp_path / "nm-mptcp.conf"))
        assert str(getattr(said, name)) == f"[path-x] in {tmp_path}/nm-mptcp.conf"


def test_every_key_has_its_place_in_the_nouns() -> None:
    fields = {section: {key.replace("-", "_") for key in keys} for section, keys in KEYS.items()}
    assert fields["main"] == set(Config.__match_args__) - {"routing", "sections", "origins"}
    assert fields["routing"] == set(RoutingOptions.__match_args__)
    assert {name for name in fields[PATH] if not name.startswith("match_")} == set(PathOptions.__match_args__)


def test_the_defaults_as_they_are_written_are_the_defaults() -> None:
    for section, nouns in (("main", Config()), ("routing", RoutingOptions())):
        for key, known in KEYS[section].items():
            assert known.parse(known.default) == getattr(nouns, key.replace("-", "_")), key
    for key, known in KEYS[PATH].items():
        if known.default:
            assert known.parse(known.default) == getattr(PathOptions(), key.replace("-", "_")).value, key


# --- which paths a section is for ---


@pytest.mark.parametrize(
    ("match", "is_for"),
    [
        ("", True),
        ("match-device=driver:ipheth", True),
        ("match-device=type:wifi", False),
        ("match-device=*\nmatch-connection=Work", False),
        ("match-device=driver:ipheth\nmatch-connection=Home\nmatch-address=192.0.2.0/24", True),
        ("match-connection=Home", True),
        ("match-connection=home", False),
        ("match-connection=id:Home", True),
        ("match-connection=id:H?m*", True),
        ("match-connection=H[a-o]me", True),
        ("match-connection=Work;Home", True),
        (f"match-connection={UUID}", True),
        (f"match-connection=uuid:{UUID.upper()}", True),
        (f"match-connection=id:{UUID}", False),
        ("match-connection=except:id:Home", False),
        ("match-connection=except:Work", True),
        ("match-connection=*,except:Home", False),
        ("match-address=192.0.2.7", True),
        ("match-address=192.0.2.8,192.0.2.7", True),
        ("match-address=2001:db8::/32", False),
        ("match-address=0.0.0.0/0,except:192.0.2.0/25", False),
        ("match-address=except:2001:db8::/32", True),
    ],
)
def test_a_section_is_for_the_paths_that_all_its_matches_take(match: str, is_for: bool, tmp_path: Path) -> None:
    config = of(f"[path-x]\n{match}\nrouting=no\n", tmp_path)
    assert options(config).routing.value is not is_for


def test_ids_may_have_any_characters(tmp_path: Path) -> None:
    config = of("[path-x]\nmatch-connection=Home \\, sweet: Home,[[]1]\nrouting=no\n", tmp_path)
    assert not options(config, id_="Home , sweet: Home").routing.value
    assert not options(config, id_="[1]").routing.value
    assert options(config).routing.value


# --- which file and section counts ---


def test_without_any_file_all_is_at_its_default(source: ConfigurationFiles) -> None:
    assert source.read().config == Config()
    assert source.read().problems == ()


def test_the_later_file_wins_key_by_key(source: ConfigurationFiles, write: Write) -> None:
    for value, name in (
        ("exclude", "lib/50.conf"),
        ("backup", "run/40.conf"),
        ("ignore", "main"),
        ("exclude", "etc/10.conf"),
    ):
        file = write(name, f"[main]\nmetered={value}\n")
        reading = source.read()
        assert reading.config.metered == value
        assert reading.config.origins["main", "metered"].file == str(file)
    write("main", "[main]\nroaming=backup\n")
    config = source.load()
    assert (config.metered, config.roaming) == ("exclude", "backup")


@pytest.mark.parametrize("place", ["run", "etc"])
@pytest.mark.parametrize("mask", ["an empty file", "a link to /dev/null"])
def test_a_file_hides_the_same_name_below(source: ConfigurationFiles, write: Write, place: str, mask: str) -> None:
    write("lib/10-phones.conf", "[path-phones]\nmetered=exclude\n")
    assert source.load().sections
    file = write(f"{place}/10-phones.conf", "")
    if mask != "an empty file":
        file.unlink()
        file.symlink_to("/dev/null")
    assert not source.load().sections


def test_only_names_that_end_in_conf_count(source: ConfigurationFiles, write: Write) -> None:
    write("etc/10.conf~", "[main]\nmode=off\n")
    write("etc/10.conf.dpkg-new", "nonsense")
    assert source.load() == Config()


def test_within_a_file_the_first_section_wins_of_several_the_last(source: ConfigurationFiles, write: Write) -> None:
    write("lib/10.conf", "[path-a]\nslot-priority=1\nmetered=ignore\n[path-b]\nslot-priority=2\nroaming=ignore\n")
    assert options(source.load()).slot_priority.value == 1
    write("etc/10-more.conf", "[path-c]\nslot-priority=3\n[path-d]\nslot-priority=4\nconnectivity=ignore\n")
    said = options(source.load())
    assert said.slot_priority.value == 3
    # Each key by itself: what the first section leaves open, the next may say.
    assert (said.connectivity.value, said.metered.value, said.roaming.value) == ("ignore", "ignore", "ignore")
    assert [section.name for section in source.load().sections] == ["path-c", "path-d", "path-a", "path-b"]


def test_a_section_that_several_files_write_is_one_in_the_place_of_the_first(
    source: ConfigurationFiles, write: Write
) -> None:
    write("lib/10.conf", "[path-a]\nmatch-device=driver:ipheth\nslot-priority=1\nrouting=no\n")
    write("lib/20.conf", "[path-b]\nslot-priority=2\n")
    write("main", "[path-a]\nslot-priority=3\n")
    said = options(source.load())
    assert (said.slot_priority.value, said.routing.value) == (2, False)
    assert [section.name for section in source.load().sections] == ["path-b", "path-a"]


def test_main_applies_where_no_section_has_the_key(tmp_path: Path) -> None:
    config = of("[main]\nmetered=exclude\nroaming=ignore\n[path-x]\nroaming=backup\n", tmp_path)
    said = options(config)
    assert (said.metered.value, str(said.metered)) == ("exclude", f"[main] in {tmp_path}/nm-mptcp.conf")
    assert (said.roaming.value, str(said.roaming)) == ("backup", f"[path-x] in {tmp_path}/nm-mptcp.conf")
    assert (said.weak_signal.value, str(said.weak_signal)) == (WeakSignal(40, 50), "the default")


def test_a_port_counts_only_where_the_flags_that_count_can_have_one(tmp_path: Path) -> None:
    config = of("[path-a]\nmatch-connection=Home\nflags=subflow\n[path-b]\nflags=signal\nsignal-port=443\n", tmp_path)
    assert options(config, id_="Work").signal_port.value == 443
    assert options(config, id_="Home").signal_port.value == 0


def test_a_named_file_counts_alone(source: ConfigurationFiles, write: Write, tmp_path: Path) -> None:
    write("main", "[main]\nmode=off\n")
    (tmp_path / "mine").write_text("[main]\nfailover=safe\n")
    assert ConfigurationFiles(tmp_path / "mine", source.paths).load() == Config(failover=Failover.SAFE)


# --- what is no good ---


def test_the_table_of_bad_files_is_long_enough() -> None:
    assert len({bad.name for bad in BAD}) == len(BAD) >= 60


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_an_error_is_one_line_with_the_place_and_what_is_allowed(bad: Bad, tmp_path: Path) -> None:
    if not bad.for_root_too and os.geteuid() == 0:
        pytest.skip("root may read every file")
    file = tmp_path / "nm-mptcp.conf"
    bad.put(file)
    with pytest.raises(ConfigError) as error:
        ConfigurationFiles(file).load()
    (problem,) = error.value.problems
    assert str(problem) == f"{file}{bad.said}"
    assert str(error.value) == str(problem)
    assert str(problem).isprintable()


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_drop_in_leaves_all_other_files_in_force(bad: Bad, source: ConfigurationFiles, write: Write) -> None:
    if not bad.for_root_too and os.geteuid() == 0:
        pytest.skip("root may read every file")
    write("main", "[main]\nmetered=exclude\n[path-good]\nslot-priority=7\n")
    bad.put(write("etc/10-good.conf", "[main]\nroaming=ignore\n").with_name("50-bad.conf"))
    reading = source.read()
    assert [str(problem).partition("50-bad.conf")[2] for problem in reading.problems] == [bad.said]
    said = options(reading.config)
    assert (said.metered.value, said.roaming.value, said.slot_priority.value) == ("exclude", "ignore", 7)


def test_any_file_name_is_shown_as_one_printable_line(
    source: ConfigurationFiles, write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("etc/10.conf", "").rename(source.paths.etc / os.fsdecode(b"a\nb\x1b[31m\xff.conf"))
    (source.paths.etc / os.fsdecode(b"a\nb\x1b[31m\xff.conf")).write_text("[path-x]\nflags=subflow\nrouting=x\n")
    reading = source.read()
    assert (
        str(reading.problems[0]) == f"{source.paths.etc}/a?b?[31m?.conf, line 3: [path-x] routing=x: must be yes or no"
    )
    assert str(options(reading.config).flags) == f"[path-x] in {source.paths.etc}/a?b?[31m?.conf"
    monkeypatch.setattr("nm_mptcp.cli.config.ConfigurationFiles", lambda _: source)
    assert main(["config"]) == 1
    assert capsys.readouterr().out.startswith(f"# {source.paths.etc}/a?b?[31m?.conf\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_without_read_permission_is_reported() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = Path(folder, "nm-mptcp.conf")
        file.touch(mode=0o600)
        os.seteuid(65534)
        try:
            (problem,) = ConfigurationFiles(file).read().problems
        finally:
            os.seteuid(0)
    assert str(problem) == f"{file}: cannot be read: Permission denied"


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path)], ids=["a file", "a loop"])
def test_a_drop_in_directory_that_cannot_be_listed_is_reported(
    make: Callable[[Path], None], source: ConfigurationFiles, tmp_path: Path
) -> None:
    place = tmp_path / PLACES["etc"]
    place.parent.mkdir(parents=True)
    make(place)
    (problem,) = source.read().problems
    assert str(problem).startswith(f"{place}: cannot be listed: ")


def test_of_several_problems_the_first_and_their_number_are_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        of("[main]\nmode=x\nfailover=y\nlimits=z\n", tmp_path)
    assert len(error.value.problems) == 3
    assert str(error.value).endswith(
        "line 2: [main] mode=x: must be auto, handover, interactive, aggregate or off"
        " (and 2 more: see 'nm-mptcp config --check')"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A line is left out, the rest counts: mode=off must hold whatever else is wrong.
        ("[main]\nmode=off\nmetered=maybe\n", Config(mode=Mode.OFF)),
        ("[main]\nmode=off\nnonsense\nlimits=keep\n", Config(mode=Mode.OFF, limits=LimitsPolicy.KEEP)),
        ("\ufeff[main]\nmode=off\n", Config(mode=Mode.OFF)),
        ("[main]\nmode=off\n[main]\nlimits=keep\n", Config(mode=Mode.OFF, limits=LimitsPolicy.KEEP)),
        # What stands behind a header that is none belongs to nobody.
        ("[main]\nmode=off\n[routing\nlimits=keep\n", Config(mode=Mode.OFF)),
        # The first counts: whoever adds a line below has not seen it.
        ("[main]\nmode=off\nmode=auto\n", Config(mode=Mode.OFF)),
        # A section for paths whose match is no good would be for all of them.
        ("[path-x]\nmatch-device=bad:x\nflags=disabled\n", Config()),
        ("[path-x]\nmatch-devcie=type:gsm\nflags=disabled\n", Config()),
        ("[path-x]\nmatch-device type:gsm\nflags=disabled\n", Config()),
        ("[path-x]\nmatch-device=type:gsm\nmatch-device=type:wifi\nflags=disabled\n", Config()),
        ("[path-x]\nmatch-device=type:gsm\n[path-x]\nflags=disabled\n", Config()),
        ("[path-x\nmatch-device=type:gsm\nflags=disabled\n", Config()),
    ],
)
def test_what_is_left_out_is_as_little_as_is_safe(text: str, expected: Config, tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_text(text)
    reading = ConfigurationFiles(file).read()
    assert reading.problems
    assert reading.config == expected


def test_a_section_keeps_its_good_keys_beside_a_bad_value(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_text("[path-x]\nmatch-device=driver:ipheth\nflags=disabled\nweak-signal=lots\n")
    assert options(ConfigurationFiles(file).read().config).flags.value is ProfileFlag.DISABLED


# --- the command ---


def test_check_prints_all_problems_and_nothing_for_a_valid_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.conf"
    file.write_text("[main]\nmode=auto\n")
    assert main(["config", "--check", str(file)]) == 0
    assert capsys.readouterr() == ("", "")
    file.write_text("[main]\nmode=x\nlimits=y\n")
    assert main(["config", "--check", str(file)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        f"nm-mptcp: {file}, line 2: [main] mode=x: must be auto, handover, interactive, aggregate or off",
        f"nm-mptcp: {file}, line 3: [main] limits=y: must be auto or keep",
    ]


def test_check_refuses_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--check", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"nm-mptcp: {tmp_path}/none: no such file\n"


def test_config_shows_each_value_and_where_it_comes_from(
    source: ConfigurationFiles, write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nm_mptcp.cli.config.ConfigurationFiles", lambda _: source)
    write("main", "[main]\nmode=handover\nlimits=keep\n")
    write("etc/20.conf", "\n[main]\nlimits=auto\n[path-x]\nmatch-device=type:gsm\nflags=backup\n")
    assert main(["config"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    main_file, drop_in = source.paths.main, source.paths.etc / "20.conf"
    assert lines[:2] == [f"# {main_file}", f"# {drop_in}"]
    assert f"mode=handover # {main_file}, line 2" in lines
    assert f"limits=auto # {drop_in}, line 3" in lines
    assert "failover=fast # default" in lines
    assert lines[lines.index("[path-x]") :] == [
        "[path-x]",
        f"match-device=type:gsm # {drop_in}, line 5",
        f"flags=backup # {drop_in}, line 6",
    ]
    assert main(["config", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["files"] == [str(main_file), str(drop_in)]
    assert shown["sections"]["main"]["mode"] == {"value": "handover", "file": str(main_file), "line": 2}
    assert shown["sections"]["routing"]["protocol"] == {"value": "77", "file": None, "line": None}
    assert list(shown["sections"]) == ["main", "routing", "path-x"]
    assert shown["problems"] == []


def test_config_shows_what_counts_and_fails_where_something_is_left_out(
    source: ConfigurationFiles, write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nm_mptcp.cli.config.ConfigurationFiles", lambda _: source)
    file = write("main", "[main]\nmode=handover\nlimits=none\n")
    assert main(["config", "--json"]) == 1
    told = capsys.readouterr()
    shown = json.loads(told.out)
    assert shown["sections"]["main"]["limits"]["value"] == "auto"
    assert shown["problems"] == [f"{file}, line 3: [main] limits=none: must be auto or keep"]
    assert told.err == f"nm-mptcp: {shown['problems'][0]}\n"
