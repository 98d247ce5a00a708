# SPDX-License-Identifier: GPL-2.0-or-later
"""NetworkManager's own syntax: key files and device lists."""
