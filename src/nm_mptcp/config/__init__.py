# SPDX-License-Identifier: GPL-2.0-or-later
"""``nm-mptcp.conf``: its files, keys and sections, and the settings that they make."""
