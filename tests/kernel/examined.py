# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator does: ``nm-mptcp check``, and then the commands that it names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nm_mptcp.checks import run_checks
from nm_mptcp.checks.collect import system_facts
from nm_mptcp.checks.finding import Finding, Result
from nm_mptcp.config.files import ConfigurationFiles
from nm_mptcp.engine.record_file import Record

COMMAND = [sys.executable, "-c", "import sys; from nm_mptcp.cli import main; sys.exit(main())"]


class Machine:
    """Runs the checks, and the commands of their remedies."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = directory / "nm-mptcp.conf"
        self.settings.write_text("")

    def findings(self, check: str = "") -> list[Finding]:
        found = run_checks(system_facts(Record(self.directory), ConfigurationFiles(self.settings)))
        return [finding for finding in found if check in ("", finding.check)]

    def found(self, check: str, subject: str = "") -> Finding:
        """The one finding of this check (about this subject)."""
        (finding,) = [each for each in self.findings(check) if subject in each.subject]
        return finding

    def result(self, check: str, subject: str = "") -> Result:
        return self.found(check, subject).result

    def follow(self, finding: Finding) -> None:
        """Run the commands of the remedy; systemd does not run here, so systemctl only changes its files."""
        assert finding.remedy, finding
        assert finding.remedy.commands, finding
        for command in finding.remedy.commands:
            subprocess.run(
                ["sh", "-e", "-c", command],
                check=not command.startswith("systemctl "),
                stdout=subprocess.DEVNULL,
                env=os.environ | {"SYSTEMD_OFFLINE": "1"},
            )

    def command(
        self, *arguments: str, before: Callable[[], None] | None = None, answers: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, "--state-dir", str(self.directory), "check", "--config", str(self.settings), *arguments],
            capture_output=True,
            text=True,
            preexec_fn=before,
            input=answers,
            check=False,
            env=os.environ | {"NO_COLOR": "1"},
        )


def packet_filter(hook: str, rule: str) -> None:
    """A rule of the packet filter, in the namespace of this thread; the test is skipped where nft or the kernel cannot."""
    lines = (
        "add table inet t",
        f"add chain inet t c {{ type filter hook {hook} priority 0; }}",
        f"add rule inet t c {rule}",
    )
    done = subprocess.run(["nft", "; ".join(lines)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nft, or this kernel, cannot do '{rule}': {done.stderr.strip()}")
