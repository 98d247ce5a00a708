# SPDX-License-Identifier: GPL-2.0-or-later
"""A device object and its applied connection -> :class:`~nm_mptcp.model.state.Device`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..model.state import Connectivity, Device, DeviceState, DeviceType, Family, Metered, Profile
from . import names
from .applied_connections import Applied
from .defaults import ConnectionDefaults
from .object_tree import DeviceObject
from .typed_values import Malformed, get, required


@dataclass(frozen=True, slots=True)
class DeviceContext:
    """What is known of a device beside its own object."""

    activation: str  #: names the activation, "" when there is none
    active_connection: Mapping[str, Any] | None  #: its properties; None: they are not known (yet)
    applied: Applied
    connectivity_checked: bool
    roaming: frozenset[str]  #: ``Device.Udi`` of the modems that roam
    strength: int | None  #: of its access point's signal (percent); None: not known


def to_device(device: DeviceObject, context: DeviceContext) -> tuple[Device, str]:
    """The device, and what is malformed in its object, "" when nothing is.

    An optional property that is missing or of the wrong type takes its default; of one that is not optional the device has no
    profile, and a reason (``unreadable``).
    """
    properties, applied = device.properties, context.applied
    try:
        interface = required(properties, "Interface", str)
        kind = DeviceType(required(properties, "DeviceType", int))
        state = DeviceState(required(properties, "State", int))
        problem = ""
    except Malformed as error:
        interface = get(properties, "Interface", str, "")
        kind, state = DeviceType.UNKNOWN, DeviceState.UNKNOWN
        problem = str(error)
    known = context.active_connection
    value = Device(
        interface=interface,
        ip_interface=get(properties, "IpInterface", str, "") or interface,
        type=kind,
        state=state,
        managed=get(properties, "Managed", bool, False),
        external=bool(get(known or {}, "StateFlags", int, 0) & names.STATE_FLAG_EXTERNAL),
        metered=Metered(get(properties, "Metered", int, 0)),
        ipv4_connectivity=_connectivity(properties, "Ip4Connectivity", context),
        ipv6_connectivity=_connectivity(properties, "Ip6Connectivity", context),
        activation=context.activation,
        unreadable=f"NetworkManager's reply is malformed: {problem}" if problem else applied.unreadable,
        driver=get(properties, "Driver", str, ""),
        hardware_address=get(properties, "PermHwAddress", str, ""),
        type_name=_type_name(properties, kind),
        driver_version=get(properties, "DriverVersion", str, ""),
        roaming=get(properties, "Udi", str, "") in context.roaming,
        strength=context.strength,
    )
    # Without the active connection's own object it is not known whether it is external: no profile until then.
    if applied.profile is None or applied.defaults is None or known is None or problem:
        return value, problem
    return replace(
        value,
        profile=_with_route_tables(applied.profile, applied.defaults, value),
        default_flags=applied.defaults.flags(value),
    ), ""


def _connectivity(properties: Mapping[str, Any], name: str, context: DeviceContext) -> Connectivity:
    return Connectivity(get(properties, name, int, 0)) if context.connectivity_checked else Connectivity.UNKNOWN


def _type_name(properties: Mapping[str, Any], kind: DeviceType) -> str:
    """What ``match-device=type:`` calls the device (``get_type_description`` of each device class)."""
    if kind is DeviceType.MODEM:
        capabilities = get(properties, "CurrentCapabilities", int, 0)
        if capabilities & names.MODEM_GSM:
            return "gsm"
        if capabilities & names.MODEM_CDMA:
            return "cdma"
    if kind is DeviceType.GENERIC and (description := get(properties, "TypeDescription", str, "")):
        return description
    return names.TYPE_NAMES.get(kind, "")


def _with_route_tables(profile: Profile, defaults: ConnectionDefaults, device: Device) -> Profile:
    """The profile, with NetworkManager's defaults for the tables where it names none."""
    ipv4 = profile.ipv4_route_table or defaults.route_table(device, Family.IPV4)
    ipv6 = profile.ipv6_route_table or defaults.route_table(device, Family.IPV6)
    if (ipv4, ipv6) == (profile.ipv4_route_table, profile.ipv6_route_table):
        return profile
    return replace(profile, ipv4_route_table=ipv4, ipv6_route_table=ipv6)
