# SPDX-License-Identifier: GPL-2.0-or-later
"""Which test follows which remedy, and sees what was wrong go: ``tests/unit/test_remedies.py`` holds the lists whole.

A remedy is offered only when a test has followed it. What is only looked at, and says so ("see ..."), is none.
"""

from __future__ import annotations

_CHECKS, _BESIDE = "tests/kernel/test_checks.py::test_", "tests/kernel/test_checks_conflicts.py::test_"
_BED, _CHECK = "tests/networkmanager/test_remedies.py::test_", "tests/networkmanager/test_check.py::test_"
_SYSTEM, _PURE = "tests/packages/test_remedies.py::test_", "tests/unit/test_remedies.py::test_"

#: The commands of ``checks``, ``{}`` for what differs.
CHECKS = {
    "ip link set {interface} up": _BED + "a_link_that_is_down",
    "ip link set {} up": _CHECKS + "an_endpoint_on_a_link_that_is_down",
    "ip mptcp endpoint add {} dev {} {}": _CHECKS + "an_endpoint_on_the_wrong_interface",
    "ip mptcp endpoint add {} dev {} {} subflow": _CHECKS + "an_endpoint_without_a_flag_that_does_something",
    "ip mptcp endpoint delete id {}": _CHECKS + "an_endpoint_whose_address_is_nowhere",
    "ip mptcp limits set subflows {} add_addr_accepted {}": _CHECKS + "limits_that_are_too_low",
    "{} route add default {}dev {} table {}": _CHECKS + "an_address_that_leaves_by_another_link",
    "{} rule add from {} lookup {}": _CHECKS + "ipv6_addresses_are_checked_alike",
    "{} rule delete priority {} from {} lookup {}{}": _CHECKS + "an_earlier_rule_to_another_link",
    "sysctl -w net/ipv4/conf/{}/{}": _CHECKS + "two_links_on_one_subnet",
    "sysctl -w net.mptcp.allow_join_initial_addr_port=1": _CHECKS + "joins_at_the_first_address_forbidden",
    "sysctl -w net.mptcp.blackhole_timeout={}": _CHECKS + "a_network_that_drops_mptcp",
    "sysctl -w net.mptcp.enabled=1": _CHECKS + "mptcp_switched_off",
    "echo net.mptcp.enabled=1 >/etc/sysctl.d/90-nm-mptcp.conf": _CHECKS + "mptcp_switched_off",
    "sysctl -w net.mptcp.path_manager=kernel": _CHECKS + "a_userspace_path_manager",
    "sysctl -w net.mptcp.pm_type=0": _CHECKS + "a_userspace_path_manager",
    "kill {}": _BESIDE + "mptcpd_on_the_same_machine",
    "mkdir -p {}": _BESIDE + "networkd_that_deletes_foreign_routes_and_rules",
    "printf '{}\\n' >{}/90-nm-mptcp.conf": _BESIDE + "networkd_that_deletes_foreign_routes_and_rules",
    "systemctl restart systemd-networkd": _SYSTEM + "a_networkd_that_deletes_what_others_made",
    "systemctl disable --now nm-cloud-setup.timer": _BESIDE + "nm_cloud_setup_on_the_same_machine",
    "systemctl disable --now {}": _SYSTEM + "a_path_of_another_is_told_by_the_unit_that_it_runs_in",
    "systemctl enable --now nm-mptcp": _SYSTEM + "a_service_that_does_not_run",
    "systemctl restart nm-mptcp": _SYSTEM + "a_service_that_does_not_answer",
    "systemctl start NetworkManager": _SYSTEM + "a_networkmanager_that_does_not_run",
    "nm-mptcp apply": _CHECK + "without_the_service",
    "nmcli connection modify uuid {} connection.mptcp-flags {}": _CHECK
    + "profiles_and_settings_that_are_not_as_they_should_be",
    "nmcli connection modify uuid {} {}": _BED + "explicit_flags_for_a_profile_that_says_never_default",
    "nmcli connection up uuid {}": _CHECK + "without_the_service",
    "nmcli device reapply {}": _BED + "explicit_flags_for_a_profile_that_says_never_default",
    "nmcli general reload conf": _CHECK + "without_the_service",
    "rm {}": _CHECK + "without_the_service",
    # They show what is to be changed, as the words beside them say; it is changed then.
    "bpftool cgroup show {}": _CHECKS + "a_socket_that_a_bpf_program_refuses",
    "ip route show table {}": _BESIDE + "strongswan_whose_table_comes_first",
    "nm-mptcp config --check": _CHECK + "beside_the_service",
    "NetworkManager --print-config": _CHECK + "profiles_and_settings_that_are_not_as_they_should_be",
    "{} rule show priority {}": _CHECKS + "no_remedy_deletes_a_rule_for_all_to_another_link",
}

#: What ``explain`` offers, by what it is for.
EXPLAIN = {
    "make it a regular path": _BED + "flags_of_profiles",
    "use it only as backup": _BED + "flags_of_profiles",
    "disable it as a path": _BED + "flags_of_profiles",
    "let nm-mptcp choose its flags": _BED + "flags_of_profiles",
    "make it a path": _BED + "flags_of_profiles",
    "make it a backup path": _BED + "a_kind_that_is_no_uplink",
    "mark it as not metered": _BED + "a_metered_link",
    "add a default route": _BED + "a_link_that_gets_no_default_route",
    "make it a path to servers in its own network, without a default route": _BED + "a_link_that_gets_no_default_route",
    "add a default route in a table of its own, used only by sockets bound to its address": _BED
    + "a_profile_that_says_never_default",
    "add a default route in the main table": _BED + "a_profile_that_says_never_default",
    "hand the endpoint over to nm-mptcp (interrupts the connection)": _BED
    + "an_endpoint_that_networkmanager_owns_still",
    "connect it": _BED + "an_interface_that_is_not_connected",
    "choose each path's priority by its kind of device": _BED + "the_mode",
    "stop sharing it, and use it as an uplink": _BED + "a_connection_that_is_shared",
    "bring the link up": _BED + "a_link_that_is_down",
    "let NetworkManager manage it": _BED + "an_interface_that_networkmanager_does_not_manage",
    "create a profile for it": _BED + "an_address_that_somebody_else_set_up",
    "run it as root": _BED + "a_profile_that_somebody_else_may_read_alone",
    "enable MPTCP": _BED + "mptcp_that_is_off",
    "have NetworkManager check again": _BED + "a_portal_that_is_over",
    "prefer another link for new connections (the lowest metric wins)": _BED
    + "where_new_connections_begin_and_what_is_told_to_nobody",
    "hide a link's address from all servers": _BED + "where_new_connections_begin_and_what_is_told_to_nobody",
    "undo this, so that nm-mptcp chooses again": "tests/networkmanager/test_metered.py::test_"
    + "a_priority_that_is_changed_by_hand_is_left_and_is_no_word_of_networkmanagers",
    "make it a path anyway": "tests/networkmanager/test_paths.py::test_"
    + "what_networkmanager_did_not_configure_is_no_path_unless_a_section_names_it",
    # Of our own configuration: what it says is read, and decided by.
    "ignore metered": _PURE + "what_the_configuration_is_said_to_change_it_changes",
    "use it while roaming": _PURE + "what_the_configuration_is_said_to_change_it_changes",
    "ignore the signal strength": _PURE + "what_the_configuration_is_said_to_change_it_changes",
    "use the link although it is silent": _PURE + "what_the_configuration_is_said_to_change_it_changes",
    "allow paths outside the tunnel, visible to others": _PURE + "what_the_configuration_is_said_to_change_it_changes",
    "prefer it for an endpoint": _PURE + "what_the_configuration_is_said_to_change_it_changes",
    "ignore connectivity on this link": _PURE + "what_the_configuration_is_said_to_change_it_changes",
    "do not suspend flapping links": _PURE + "what_the_configuration_is_said_to_change_it_changes",
}

#: The commands in what ``status`` tells.
STATUS = {
    "nm-mptcp apply": _BED + "what_status_says_after_clear",
    "nm-mptcp clear": _BED + "what_status_says_after_clear",
    "sysctl -w net.mptcp.enabled=1": _BED + "mptcp_that_is_off",
    "sysctl -w net.mptcp.pm_type=0": _BED + "another_path_manager",
}
