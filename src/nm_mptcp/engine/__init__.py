# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop, and all that has time in it: the record file, flap damping, retries."""
