# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel by netlink and /proc/sys: dumps, events and writes. Depends on the model, not on NetworkManager."""
