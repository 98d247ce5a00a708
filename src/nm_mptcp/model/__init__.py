# SPDX-License-Identifier: GPL-2.0-or-later
"""Frozen values: the state of the kernel and of NetworkManager, the desired state, and the reasons for it."""
