# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure decisions: a snapshot and the configuration become what is desired, and that a plan of operations."""
