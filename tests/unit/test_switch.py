# SPDX-License-Identifier: GPL-2.0-or-later
"""The switch's pins, whatever happens while it is loaded: a kernel that stands for the real one has files for pins."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nm_mptcp.launch import program, switch
from nm_mptcp.launch.switch import SwitchError, found, loaded, refusal, remove_unless


class FakeTable:
    """A set of numbers, in a file once it is pinned."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.unpinned: set[int] = set()

    def _numbers(self) -> set[int]:
        return set(json.loads(self.path.read_text())) if self.path else self.unpinned

    def _write(self, numbers: set[int]) -> None:
        self.unpinned = numbers
        if self.path:
            self.path.write_text(json.dumps(sorted(numbers)))

    def add(self, key: int) -> None:
        self._write(self._numbers() | {key})

    def discard(self, key: int) -> None:
        self._write(self._numbers() - {key})

    def keys(self) -> Iterator[int]:
        yield from self._numbers()

    def close(self) -> None:
        pass


class FakeKernel:
    """One in which each step can go wrong; ``steps`` are those that were done."""

    def __init__(self, *, fails: int = -1, dies: bool = False, asked: bool = True) -> None:
        self.fails, self.dies, self.asked = fails, dies, asked
        self.steps: list[str] = []

    def _step(self, name: str) -> None:
        if len(self.steps) == self.fails:
            if self.dies:
                os._exit(9)
            raise OSError(errno.EPERM, "Operation not permitted")
        self.steps.append(name)

    def new_table(self) -> FakeTable:
        self._step("new table")
        return FakeTable()

    def pin_table(self, table: switch.Table, path: Path) -> None:
        self._step("pin table")
        assert isinstance(table, FakeTable)
        with path.open("x") as file:
            file.write(json.dumps(sorted(table.unpinned)))
        table.path = path

    def pinned_table(self, path: Path) -> FakeTable:
        self._step("pinned table")
        return FakeTable(path)

    def attach(self, table: switch.Table) -> int:  # noqa: ARG002
        self._step("attach")
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def pin(self, link: int, path: Path) -> None:
        os.fstat(link)
        self._step("pin link")
        path.open("x").close()
        self._step("pinned")

    def works(self, table: switch.Table) -> bool:  # noqa: ARG002
        self._step("works")
        return self.asked


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "nm-mptcp"


def pins(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def whole() -> list[str]:
    return ["groups", f"link-{program.version()}"]


def former(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Another version's switch, in which 7 is registered."""
    with monkeypatch.context() as patch:
        patch.setattr(program, "version", lambda: "00000000")
        with loaded(directory, FakeKernel()) as groups:
            groups.register(7)
    assert pins(directory) == ["groups", "link-00000000"]


def test_it_is_loaded_once_and_the_link_is_pinned_last(directory: Path) -> None:
    kernel = FakeKernel()
    with loaded(directory, kernel) as groups:
        groups.register(5)
        groups.register(5)
        assert groups.ids() == {5}
    assert kernel.steps == ["new table", "pin table", "attach", "works", "pin link", "pinned"]
    assert pins(directory) == whole()
    assert directory.stat().st_mode & 0o777 == 0o700
    again = FakeKernel()
    with loaded(directory, again) as groups:
        assert groups.ids() == {5}
        groups.forget(5)
        groups.forget(5)
    assert again.steps == ["pinned table"]
    with found(directory, FakeKernel()) as there:
        assert there is not None
        assert there.ids() == frozenset()


def test_where_it_is_not_loaded_nothing_is_made_to_look(directory: Path) -> None:
    with found(directory, FakeKernel()) as groups:
        assert groups is None
    assert not remove_unless(lambda _: False, directory, FakeKernel())
    assert not directory.exists()


def test_it_goes_when_it_is_not_used(directory: Path) -> None:
    with loaded(directory, FakeKernel()) as groups:
        groups.register(5)
    assert not remove_unless(lambda groups: bool(groups.ids()), directory, FakeKernel())
    assert pins(directory) == whole()
    assert remove_unless(lambda _: False, directory, FakeKernel())
    assert not directory.exists()


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("dies", [False, True])
def test_who_fails_on_the_way_leaves_nothing_or_one_that_works(directory: Path, step: int, *, dies: bool) -> None:
    _fail(directory, FakeKernel(fails=step, dies=dies))
    assert dies or pins(directory) in ([], whole())
    # After a crash there may be a table, which no program reads; with a link all is there.
    assert pins(directory) in ([], ["groups"], whole())
    with loaded(directory, FakeKernel()) as groups:
        assert groups.ids() == frozenset()
        groups.register(3)
    assert pins(directory) == whole()


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("dies", [False, True])
def test_an_upgrade_that_fails_on_the_way_leaves_the_former_or_the_new_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch, step: int, *, dies: bool
) -> None:
    former(monkeypatch, directory)
    _fail(directory, FakeKernel(fails=step, dies=dies))
    assert "groups" in pins(directory)
    assert set(pins(directory)) & {"link-00000000", f"link-{program.version()}"}
    with loaded(directory, FakeKernel()) as groups:
        assert groups.ids() == {7}
    assert pins(directory) == whole()


def test_in_an_upgrade_both_are_attached_for_a_moment_with_one_table(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former(monkeypatch, directory)
    kernel = FakeKernel()
    seen = []
    monkeypatch.setattr(
        switch, "_unlink", lambda paths: (seen.append(pins(directory)), [path.unlink() for path in paths])
    )
    with loaded(directory, kernel) as groups:
        assert groups.ids() == {7}
    assert kernel.steps == ["pinned table", "attach", "works", "pin link", "pinned"]
    assert seen == [["groups", "link-00000000", f"link-{program.version()}"]]


def test_a_table_that_lost_its_link_is_not_taken_up_again(directory: Path) -> None:
    """Who was removed does not come back with the next who is registered."""
    with loaded(directory, FakeKernel()) as groups:
        groups.register(5)
    (directory / whole()[1]).unlink()
    with found(directory, FakeKernel()) as there:
        assert there is None
    with loaded(directory, FakeKernel()) as groups:
        assert groups.ids() == frozenset()


def test_a_program_that_is_never_asked_is_not_kept(directory: Path) -> None:
    with pytest.raises(SwitchError, match="no MPTCP socket all the same"), loaded(directory, FakeKernel(asked=False)):
        pass
    assert not directory.exists()


def test_ten_at_once_leave_one(directory: Path) -> None:
    kernels = [FakeKernel() for _ in range(10)]
    ready = threading.Barrier(10)

    def load(number: int) -> None:
        ready.wait()
        with loaded(directory, kernels[number]) as groups:
            groups.register(number)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("attach" in kernel.steps for kernel in kernels) == 1
    assert pins(directory) == whole()
    with found(directory, FakeKernel()) as groups:
        assert groups is not None
        assert groups.ids() == set(range(10))


def test_who_waits_while_it_is_removed_loads_it_anew(directory: Path) -> None:
    waits = threading.Event()
    done: list[frozenset[int]] = []

    def load() -> None:
        waits.set()
        with loaded(directory, FakeKernel()) as groups:
            groups.register(2)
            done.append(groups.ids())

    def used(groups: switch.Groups) -> bool:
        thread.start()
        waits.wait()
        return not groups.ids()

    thread = threading.Thread(target=load)
    with loaded(directory, FakeKernel()) as groups:
        groups.register(1)
    assert remove_unless(used, directory, FakeKernel())
    thread.join()
    assert done == [frozenset({2})]
    assert pins(directory) == whole()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_may_enter_is_not_trusted(directory: Path, mode: int) -> None:
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(SwitchError, match="not root's alone"), loaded(directory, FakeKernel()):
        pass


def test_a_link_in_place_of_the_directory_is_not_followed(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SwitchError), loaded(directory, FakeKernel()):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EPERM, "forbids"),
        (errno.E2BIG, str(switch.MOST_GROUPS)),
        (524, "cannot attach"),
        (errno.ENOSYS, "CONFIG_BPF_SYSCALL"),
        (errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_each_refusal_of_the_kernel_is_one_line(number: int, words: str) -> None:
    told = refusal(OSError(number, os.strerror(number)))
    assert words in told
    assert "\n" not in told


def _fail(directory: Path, kernel: FakeKernel) -> None:
    """Load it with a kernel that refuses a step, or in which this process dies at it."""
    if not kernel.dies:
        with contextlib.suppress(SwitchError), loaded(directory, kernel):
            pass
        return
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException), loaded(directory, kernel):
            pass
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
