# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp.conf``: files, sections, keys, and the settings they result in."""
