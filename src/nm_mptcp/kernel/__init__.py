# SPDX-License-Identifier: GPL-2.0-or-later
"""The netlink side: what the kernel has, what it tells, and the writes. Knows the model, nothing of NetworkManager."""
