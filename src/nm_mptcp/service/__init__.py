# SPDX-License-Identifier: GPL-2.0-or-later
"""The service: the daemon, its D-Bus interface and objects, calls to it, and one convergence without it."""
