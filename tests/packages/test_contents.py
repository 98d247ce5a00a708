# SPDX-License-Identifier: GPL-2.0-or-later
"""What is in the packages: what ``make install`` installs, in the distribution's way, and no stray file."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nm_mptcp import __version__

from .built import DIST, deb, rpm, sdist, source_rpm, wheel

ROOT = Path(__file__).parents[2]
DOCUMENTATION = "usr/share/doc/nm-mptcp"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``make install`` makes of the source distribution; a change since then is none of the packages' business."""
    folder = tmp_path_factory.mktemp("installed")
    with tarfile.open(sdist()) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    subprocess.run(
        ["make", "-s", "-C", source, "install", f"DESTDIR={folder}/root", "PYTHON=/usr/bin/python3"],
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        check=True,
        capture_output=True,
    )
    return folder / "root"


#: Where packages put completions for zsh: on Debian, and elsewhere.
ZSH_DEBIAN, ZSH = "usr/share/zsh/vendor-completions/", "usr/share/zsh/site-functions/"


def installed(stage: Path, zsh: str) -> dict[str, bytes]:
    """What is there, with the folder for zsh that a package has."""
    files = {str(path.relative_to(stage)): path.read_bytes() for path in stage.rglob("*") if not path.is_dir()}
    return {name.replace(ZSH_DEBIAN, zsh).replace(ZSH, zsh): content for name, content in files.items()}


# --- Debian ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def debian() -> tarfile.TarFile:
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb()], check=True, capture_output=True)
    return tarfile.open(fileobj=io.BytesIO(done.stdout))


def files_of(archive: tarfile.TarFile, clean: Callable[[str], str] = lambda name: name) -> dict[str, bytes]:
    files = {}
    for member in archive.getmembers():
        if not member.isdir():
            content = archive.extractfile(member)
            assert content is not None, f"{member.name} is no plain file"
            files[clean(member.name.removeprefix("./"))] = content.read()
    return files


def test_the_debian_package_has_what_make_install_installs(debian: tarfile.TarFile, stage: Path) -> None:
    packaged = files_of(debian)
    expected = installed(stage, ZSH_DEBIAN)
    for name in list(expected):
        if "/man/" in name:
            page = packaged.pop(f"{name}.gz")
            # The day in a page is its source's, and there the packages' own.
            without_date = re.compile(rb"^\.TH .*$", re.MULTILINE)
            assert without_date.sub(b"", gzip.decompress(page)) == without_date.sub(b"", expected.pop(name))
    del expected[f"{DOCUMENTATION}/LICENSE"]
    for theirs in ("changelog.Debian.gz", "changelog.gz", "copyright"):
        del packaged[f"{DOCUMENTATION}/{theirs}"]
    for theirs in ("python3/runtime.d/nm-mptcp.rtupdate", "lintian/overrides/nm-mptcp"):
        del packaged[f"usr/share/{theirs}"]
    assert packaged.keys() == expected.keys()
    assert packaged == expected


def test_nothing_of_the_debian_package_is_in_a_folder_of_before_usrmerge_or_not_roots(debian: tarfile.TarFile) -> None:
    for member in debian.getmembers():
        assert member.name in (".", "./") or member.name.startswith(("./usr", "./etc"))
        assert (member.uid, member.gid) == (0, 0)
        wanted = 0o755 if member.isdir() or "/bin/" in member.name or "/dispatcher.d/" in member.name else 0o644
        assert member.mode & 0o7777 == wanted or member.name.endswith(".rtupdate"), member.name


def test_what_is_in_etc_is_the_administrators(debian: tarfile.TarFile) -> None:
    conffiles = subprocess.run(
        ["dpkg-deb", "-I", deb(), "conffiles"], check=True, capture_output=True, text=True
    ).stdout
    assert sorted(conffiles.split()) == sorted(f"/{name}" for name in files_of(debian) if name.startswith("etc/"))


def test_the_debian_package_needs_what_it_uses() -> None:
    for field, packages in {
        "Depends": ("python3-dbus-fast | python3-dbus-next", "python3-pyroute2", "network-manager (>= 1.40)"),
        "Recommends": ("python3-pyelftools", "python3-rich"),
    }.items():
        told = subprocess.run(["dpkg-deb", "--field", deb(), field], check=True, capture_output=True, text=True).stdout
        for package in packages:
            assert package in told


@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed")
def test_lintian_finds_nothing() -> None:
    # A lintian of before trixie wants an init script. Without systemd there is no service, and the dispatcher scripts do the
    # work; a newer one knows no such tag, and would refuse an override of it.
    old = "package-supports-alternative-init-but-no-init.d-script"
    told = subprocess.run(["lintian-explain-tags", old], check=False, capture_output=True, text=True)
    # The standards are those of the oldest distribution that the package is for.
    suppressed = ["--suppress-tags", old if told.returncode == 0 else "out-of-date-standards-version"]
    (changes,) = DIST.glob(f"nm-mptcp_{__version__}-*.changes")
    done = subprocess.run(
        ["lintian", "--display-info", *suppressed, "--fail-on", "error,warning,info", "--allow-root", changes],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("", 0)


# --- RPM ---------------------------------------------------------------------------------------------------------------


def query(package: Path, form: str) -> list[str]:
    done = subprocess.run(["rpm", "-qp", "--qf", form, package], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_the_rpm_has_what_make_install_installs(stage: Path) -> None:
    lines = query(rpm(), "[%{FILEMODES:perms} %{FILEFLAGS:fflags}| %{FILEUSERNAME} %{FILENAMES}\n]")
    packaged = {}
    for line in lines:
        mode, flags, owner, name = line.split()
        assert owner == "root"
        if not mode.startswith("d"):
            packaged[name.removeprefix("/").removesuffix(".gz")] = flags
    compiled = {name for name in packaged if name.endswith(".pyc")}
    files = set(packaged) - compiled
    documents = {name for name in files if re.match(r"usr/share/(doc|licenses)/nm-mptcp", name)}
    assert {Path(name).name for name in documents} == {"README.md", "LICENSE"}
    expected = {name for name in installed(stage, ZSH) if not name.startswith(DOCUMENTATION)}
    assert files - documents == expected
    # Each module is compiled, for two levels of optimisation.
    assert len(compiled) == 2 * sum(name.endswith(".py") for name in expected)
    assert {name for name, flags in packaged.items() if "c" in flags and "n" in flags} == {
        name for name in files if name.startswith("etc/")
    }


@pytest.mark.skipif(shutil.which("rpmlint") is None, reason="rpmlint is not installed")
def test_rpmlint_finds_nothing_but_what_is_explained() -> None:
    done = subprocess.run(
        [
            "rpmlint",
            "-c",
            ROOT / "packaging/rpm/rpmlint.toml",
            rpm(),
            source_rpm(),
            ROOT / "packaging/rpm/nm-mptcp.spec",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert "2 packages and 1 specfiles checked; 0 errors, 0 warnings" in done.stdout, done.stdout
    assert done.returncode == 0


# --- source ------------------------------------------------------------------------------------------------------------


def make_again(folder: Path, *kinds: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run(
        ["/usr/bin/python3", "-I", ROOT / "tools/dist", folder, *kinds],
        env=environment,
        check=True,
        capture_output=True,
    )


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        make_again(tmp_path / "one")
    finally:
        os.umask(umask)
    make_again(tmp_path / "two")
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert sorted(one) == [f"nm_mptcp-{__version__}-py3-none-any.whl", f"nm_mptcp-{__version__}.tar.gz"]
    assert one == two


def test_a_source_distribution_makes_itself_again(tmp_path: Path) -> None:
    with tarfile.open(sdist()) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    subprocess.run(
        ["/usr/bin/python3", "-I", tree / "tools/dist", tmp_path / "again", "sdist"], check=True, capture_output=True
    )
    (again,) = (tmp_path / "again").iterdir()
    assert again.read_bytes() == sdist().read_bytes()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no git clone")
def test_the_source_distribution_is_what_git_has(tmp_path: Path) -> None:
    make_again(tmp_path, "sdist")
    (made,) = tmp_path.iterdir()
    with tarfile.open(made) as archive:
        names = {name.split("/", 1)[1] for name in files_of(archive)}
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, "ls-files"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    generated = {name for name in names if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert names - generated == {name for name in listed if (ROOT / name).exists()}


def test_the_wheel_has_the_modules_and_nothing_else(stage: Path) -> None:
    with zipfile.ZipFile(wheel()) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    modules = {name: content for name, content in files.items() if ".dist-info/" not in name}
    folder = "usr/lib/nm-mptcp/"
    assert modules == {
        name.removeprefix(folder): content
        for name, content in installed(stage, ZSH).items()
        if name.startswith(f"{folder}nm_mptcp/")
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")
def test_the_wheel_alone_is_a_working_command_that_says_what_else_a_package_brings(tmp_path: Path) -> None:
    python = tmp_path / "venv/bin/python"
    subprocess.run(["/usr/bin/python3", "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel()], check=True)
    # Its own /run, so that it neither finds a bus nor a record there; /usr and /etc as they are on a system without us.
    script = """
        mount -t tmpfs tmpfs /run
        for command in apply 'status --json' 'apply --dry-run' clear; do
            "$0" $command || exit
        done
    """
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-ec", script, tmp_path / "venv/bin/nm-mptcp"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"service": "absent"' in done.stdout
    if not Path("/usr/lib/systemd/system/nm-mptcp.service").exists():
        assert done.stderr.count("only the command is installed") == 2, done.stderr


def test_all_name_the_same_version() -> None:
    changelog = (ROOT / "packaging/debian/changelog").read_text()
    spec = (ROOT / "packaging/rpm/nm-mptcp.spec").read_text()
    assert re.match(r"nm-mptcp \((.*)-\d+\) ", changelog).group(1) == __version__  # type: ignore[union-attr]
    assert re.search(r"^Version: +(\S+)$", spec, re.MULTILINE).group(1) == __version__  # type: ignore[union-attr]
    assert re.search(rf"^\* .* - {re.escape(__version__)}-\d+$", spec, re.MULTILINE)
