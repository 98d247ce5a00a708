# SPDX-License-Identifier: GPL-2.0-or-later
"""The system bus: the one connection to it, polkit, properties, and the names of our own interface."""
