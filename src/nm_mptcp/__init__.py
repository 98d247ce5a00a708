# SPDX-License-Identifier: GPL-2.0-or-later
"""Make every connection that NetworkManager brings up a working path for Multipath TCP."""

__version__ = "0.1.0"
