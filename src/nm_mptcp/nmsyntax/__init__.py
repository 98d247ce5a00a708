# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager's own syntax: its key files, and how it singles out devices."""
