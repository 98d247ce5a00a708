# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop and all that depends on time: the reconciler, the record file, flap damping, retries."""
