# SPDX-License-Identifier: GPL-2.0-or-later
"""Real Wi-Fi in a machine: radios of the kernel's own (mac80211_hwsim), two access points of one network (hostapd, WPA2),
and a wire beside it. All that is beyond the links is in the namespace ``far``; the servers there are 192.0.2.1 and 192.0.2.2.
"""

from __future__ import annotations

from ..packages.system import System

#: The access points, and the channel of each.
CHANNELS = {1: 1, 2: 6}

#: How strong (dBm) an access point is usually heard, and one at the other end of the house.
USUAL, WEAK = -30, -90

#: How to talk with NetworkManager's supplicant.
SUPPLICANT = "wpa_cli -p /run/wpa_supplicant -i wlan0"

_FAR = """
ip netns add far
ip -n far link set lo up
ip -n far address add 192.0.2.1/32 dev lo
ip -n far address add 192.0.2.2/32 dev lo
ip netns exec far sysctl -qw net.ipv4.ip_forward=1
ip -n far mptcp limits set subflow 8 add_addr_accepted 8
ip -n far link add lan type bridge forward_delay 0
ip -n far address add 10.1.0.1/24 dev lan
ip -n far link set lan up
ip link add wire type veth peer name wire netns far
ip -n far address add 10.2.0.1/24 dev wire
ip -n far link set wire up
modprobe mac80211_hwsim radios=3
until test -e /sys/class/net/wlan2/phy80211/name; do sleep 0.2; done
"""

# A station that does not answer in time is asked 20 times, not 4: an emulated one may be slow, and NetworkManager takes who is
# sent away in the midst of that for one with a wrong password (see _PERSON).
_ACCESS_POINT = """
name=$(cat /sys/class/net/wlan{number}/phy80211/name)
echo "$name" >/run/radio-{number}
iw phy "$name" set netns name far
cat >/run/access-point-{number}.conf <<'END'
interface=wlan{number}
bridge=lan
driver=nl80211
ctrl_interface=/run/access-points
ssid=Home
hw_mode=g
channel={channel}
wpa=2
wpa_key_mgmt=WPA-PSK
rsn_pairwise=CCMP
wpa_passphrase=correct horse
wpa_pairwise_update_count=20
END
cat >/run/systemd/system/access-point-{number}.service <<'END'
[Service]
ExecStart=ip netns exec far hostapd /run/access-point-{number}.conf
END
"""

_LEASES = """
cat >/run/systemd/system/leases.service <<'END'
[Service]
ExecStart=ip netns exec far dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --bind-dynamic \\
    --no-hosts --no-resolv --address=/example.net/192.0.2.1 \\
    --interface=lan --interface=wire --dhcp-range=10.1.0.50,10.1.0.99,1h --dhcp-range=10.2.0.50,10.2.0.99,1h \\
    --dhcp-authoritative --dhcp-leasefile=/run/leases
END
systemctl daemon-reload
systemctl start leases access-point-1 access-point-2
"""

_PROFILES = """
nmcli connection add type wifi con-name air ifname wlan0 ssid Home wifi-sec.key-mgmt wpa-psk wifi-sec.psk 'correct horse' \\
    ipv6.method disabled
nmcli connection add type ethernet con-name wire ifname wire ipv6.method disabled \\
    ipv4.route-metric 700 connection.metered yes
"""

# Who gives the password anew when NetworkManager asks for it.
_PERSON = """
cat >/run/systemd/system/person.service <<'END'
[Service]
ExecStart=sh -c 'journalctl -f -n 0 -o cat -u NetworkManager | while read -r line; do \\
    case $$line in *no-secrets*) nmcli connection up air ;; esac; done'
END
systemctl daemon-reload
systemctl start person
"""

# A container as most engines have it: a namespace behind a bridge, whose addresses are hidden behind the host's.
_BOX = """
ip netns add box
ip link add box0 type bridge
ip address add 172.20.0.1/24 dev box0
ip link set box0 up
ip link add name box1 type veth peer name eth0 netns box
ip link set box1 master box0 up
ip -n box address add 172.20.0.2/24 dev eth0
ip -n box link set eth0 up
ip -n box route add default via 172.20.0.1
sysctl -qw net.ipv4.ip_forward=1
nft add table ip box
nft add chain ip box out '{ type nat hook postrouting priority srcnat; }'
nft add rule ip box out ip saddr 172.20.0.0/24 oifname != box0 masquerade
"""


#: Beyond the access points nothing passes any more, so that the router there has no answer to a question for a name; and again.
LINE_DEAD = """
ip netns exec far nft -f - <<'END'
table ip dead {
    chain in {
        type filter hook input priority 0;
        iifname lan ip daddr 192.0.2.0/24 drop
        iifname lan udp dport domain drop
    }
    chain out { type filter hook output priority 0; oifname lan ip saddr 192.0.2.0/24 drop; }
}
END
"""
LINE_ALIVE = "ip netns exec far nft delete table ip dead"

#: Names are asked for by systemd-resolved, which has a server of each link from NetworkManager; and by nobody.
RESOLVED = """
systemctl unmask systemd-resolved
systemctl start systemd-resolved
nmcli general reload dns-full
until resolvectl dns | grep -q 'wlan0.*10.1.0.1' && resolvectl dns | grep -q 'wire.*10.2.0.1'; do sleep 0.2; done
"""
NOT_RESOLVED = "systemctl mask --now systemd-resolved"


# A full WireGuard tunnel to ``far``, for NetworkManager and for wg-quick; counted is what comes out of it there, and around it.
TUNNEL = """
umask 077
wg genkey >/run/near.key
wg genkey >/run/far.key
ip netns exec far ip link add wg0 type wireguard
ip netns exec far wg set wg0 listen-port 51820 private-key /run/far.key \\
    peer "$(wg pubkey </run/near.key)" allowed-ips 10.9.0.2/32
ip -n far address add 10.9.0.1/24 dev wg0
ip -n far link set wg0 up
cat >/run/vpn0.conf <<END
[Interface]
PrivateKey = $(cat /run/near.key)
Address = 10.9.0.2/24
[Peer]
PublicKey = $(wg pubkey </run/far.key)
Endpoint = 192.0.2.1:51820
AllowedIPs = 0.0.0.0/0
END
nmcli connection import type wireguard file /run/vpn0.conf
nmcli connection modify vpn0 connection.autoconnect no
nmcli connection down vpn0 || true
ip netns exec far nft -f - <<'END'
table ip counted {
    counter inside { }
    counter around { }
    chain in {
        type filter hook prerouting priority -300;
        ip daddr 192.0.2.0/24 iifname wg0 counter name inside
        ip daddr 192.0.2.0/24 iifname { lan, wire } udp dport != 51820 counter name around
        ip daddr 192.0.2.0/24 iifname { lan, wire } ip protocol != udp counter name around
    }
}
END
"""

NO_TUNNEL = """
nmcli connection delete vpn0
ip -n far link delete wg0
ip netns exec far nft delete table ip counted
"""


class Air:
    """The radio, the access points and the wire of a system."""

    def __init__(self, system: System) -> None:
        """All of it, and the profiles: "air", and "wire", which is metered. Neither is up yet."""
        self._system = system
        system.run(_FAR)
        for number, channel in CHANNELS.items():
            system.run(_ACCESS_POINT.format(number=number, channel=channel))
        system.run(_LEASES)
        system.run(_PROFILES)
        system.run(_PERSON)
        system.run(_BOX)

    def box_reaches(self, server: str, port: int) -> bool:
        """Whether the container gets an answer from an echo server, by a connection of its own."""
        asked = f"exec 3<>/dev/tcp/{server}/{port}; echo hello >&3; head -c 5 <&3"
        return self._system.run(f"ip netns exec box timeout 60 bash -c '{asked}'", check=False) == "hello"

    def bssid(self, number: int) -> str:
        """The address of an access point."""
        return self._system.run(f"ip netns exec far cat /sys/class/net/wlan{number}/address").strip()

    def used(self) -> str:
        """The address of the access point that NetworkManager says the machine is connected to; empty when to none."""
        told = self._system.run("nmcli --escape no -t -f ACTIVE,BSSID device wifi list ifname wlan0 --rescan no")
        return next((line.partition(":")[2].lower() for line in told.splitlines() if line.startswith("yes:")), "")

    def strength(self) -> int | None:
        """What NetworkManager says of the signal, in percent; None while the machine is not connected."""
        told = self._system.run("nmcli -t -f ACTIVE,SIGNAL device wifi list ifname wlan0 --rescan no")
        return next((int(line.partition(":")[2]) for line in told.splitlines() if line.startswith("yes:")), None)


# Shell commands, to be run or to be given to a program that watches what comes of them.


def switched_on(*numbers: int) -> str:
    """These access points begin."""
    return f"systemctl start {_units(numbers)}"


def switched_off(*numbers: int) -> str:
    """These access points end, and say goodbye to who is connected."""
    return f"systemctl stop {_units(numbers)}"


def unplugged(*numbers: int) -> str:
    """Nobody hears these access points any more, and they hear nobody."""
    return "; ".join(f"echo 0x{2 << number:x} >{_setting(number, 'group')}" for number in numbers)


def plugged(*numbers: int) -> str:
    """They are heard again."""
    return "; ".join(f"echo 0x1 >{_setting(number, 'group')}" for number in numbers)


def heard(number: int, dbm: int) -> str:
    """An access point is heard with that strength."""
    power = f"ip netns exec far iw dev wlan{number} set txpower fixed 0"
    # The kernel reads the number as one without a sign, and takes it for one with.
    return f"{power}; echo {dbm % 2**64} >{_setting(number, 'rx_rssi')}"


def _setting(number: int, name: str) -> str:
    return f"/sys/kernel/debug/ieee80211/$(cat /run/radio-{number})/hwsim/{name}"


def _units(numbers: tuple[int, ...]) -> str:
    return " ".join(f"access-point-{number}" for number in numbers)
