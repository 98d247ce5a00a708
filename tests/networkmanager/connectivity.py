# SPDX-License-Identifier: GPL-2.0-or-later
"""Connectivity as NetworkManager checks it, against a server in the far namespace."""

from __future__ import annotations

import http.server
import threading

from ..support.waits import wait_for
from .bed import SERVER, Bed
from .namespaces import network_of

_PORT = 8080

#: NetworkManager's configuration with which it asks :class:`CheckServer`, at each change and when it is told to.
CHECKING = f"[connectivity]\nenabled=true\nuri=http://{SERVER}:{_PORT}/check\ninterval=300\n"


class CheckServer:
    """Answers NetworkManager's connectivity check; clients of the networks in ``portals`` are sent to a login page."""

    def __init__(self, bed: Bed) -> None:
        self.portals: set[str] = set()
        told = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                portal = any(self.client_address[0].startswith(network) for network in told.portals)
                body = b"<html>log in</html>" if portal else b"NetworkManager is online\n"
                self.send_response(511 if portal else 200)
                self.send_header("X-NetworkManager-Status", "portal" if portal else "online")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with network_of(bed.far.pid):
            self._server = http.server.ThreadingHTTPServer((SERVER, _PORT), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        bed.at_end(self.close)

    def close(self) -> None:
        """Be gone."""
        self._server.shutdown()
        self._server.server_close()


def connectivity(bed: Bed) -> dict[str, str]:
    """NetworkManager's own view, each device's, after a check."""
    bed.nmcli("networking", "connectivity", "check")
    shown = bed.nmcli("-t", "-f", "GENERAL.DEVICE,GENERAL.IP4-CONNECTIVITY", "device", "show")
    values = [line.partition(":")[2] for line in shown.splitlines() if line]
    return {name: value.partition(" ")[2].strip("()") for name, value in zip(values[::2], values[1::2], strict=True)}


def wait_connectivity(bed: Bed, device: str, found: str) -> None:
    """Wait until NetworkManager says that of a device."""
    wait_for(f"NetworkManager says that {device} has {found}", lambda: connectivity(bed)[device] == found)
