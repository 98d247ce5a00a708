# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs and systemd units brought onto MPTCP; apart from all the rest."""
