# SPDX-License-Identifier: GPL-2.0-or-later
# Completion of nm-mptcp for fish.

# The words that were given before the one that is typed, without options and what belongs to them.
function __nm_mptcp_given
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case --state-dir --log-level --config --reach --report --interval --method --user
                set skip 1
            case '-*'
            case '*'
                printf '%s\n' $word
        end
    end
end

# __nm_mptcp_at COMMAND COUNT: whether that command was given, and COUNT words after it.
function __nm_mptcp_at
    set -l given (__nm_mptcp_given)
    test (count $given) = (math $argv[2] + 1); and test $given[1] = $argv[1]
end

# Whether no command was given, or one of these.
function __nm_mptcp_none
    test (count (__nm_mptcp_given)) = 0
end

function __nm_mptcp_command
    set -l given (__nm_mptcp_given)
    if test (count $given) = 0
        return 1
    end
    if test $given[1] = exec; and test (count $given) -gt 1; or contains -- -- (commandline -opc)
        return 1
    end
    contains -- $given[1] $argv
end

# Whether what is typed is the program of "exec" or its words: after "--", or no option of ours.
function __nm_mptcp_running
    set -l given (__nm_mptcp_given)
    set -q given[1]; and test $given[1] = exec
    and begin
        set -q given[2]; or contains -- -- (commandline -opc); or not string match -q -- '-*' (commandline -ct)
    end
end

function __nm_mptcp_what
    for path in /sys/class/net/*
        printf '%s\tinterface\n' (string replace -r '.*/' '' -- $path)
    end
    for name in (nmcli --escape no --get-values NAME connection show 2>/dev/null)
        printf '%s\tprofile\n' $name
    end
end

function __nm_mptcp_units
    if test (__nm_mptcp_given)[2] = enable
        systemctl list-unit-files --type=service,socket,slice --plain --no-legend --no-pager 2>/dev/null | string replace -r ' .*' ''
    else
        for path in /etc/systemd/system/*.d/50-nm-mptcp.conf
            string replace -r '.*/(.*)\.d/50-nm-mptcp\.conf$' '$1' -- $path
        end
    end
end

# What is behind "exec", for the completion of the program itself.
function __nm_mptcp_program
    set -l words (commandline -opc) (commandline -ct)
    set -l number (contains -i -- exec $words)
    while set -q words[$number]; and test $number -lt (count $words)
        set number (math $number + 1)
        switch $words[$number]
            case -- -q --quiet --dry-run --json
            case '*'
                break
        end
    end
    set -l before
    if test $number -lt (count $words)
        set before (string escape -- $words[$number..-2])
    end
    complete -C "$(string join ' ' -- $before $words[-1])"
end

complete -c nm-mptcp -f
complete -c nm-mptcp -n '__nm_mptcp_none' -l version -d 'show the version'
complete -c nm-mptcp -n '__nm_mptcp_none' -s h -l help -d 'show this help message and exit'
complete -c nm-mptcp -n '__nm_mptcp_none' -l state-dir -xa '(__fish_complete_directories)' -d 'folder of the record'
complete -c nm-mptcp -n '__nm_mptcp_none' -l log-level -xa 'off err warn info debug trace' -d 'what to tell'

complete -c nm-mptcp -n '__nm_mptcp_none' -a status -d 'show each link and address, whether it is a path, and why'
complete -c nm-mptcp -n '__nm_mptcp_none' -a explain -d 'explain a path, or where a connection goes'
complete -c nm-mptcp -n '__nm_mptcp_none' -a watch -d 'show links, subflows and their events, live'
complete -c nm-mptcp -n '__nm_mptcp_none' -a check -d 'check everything that MPTCP needs, and propose remedies'
complete -c nm-mptcp -n '__nm_mptcp_none' -a mode -d 'show or set which links are used'
complete -c nm-mptcp -n '__nm_mptcp_none' -a config -d 'show, check or reload the configuration'
complete -c nm-mptcp -n '__nm_mptcp_none' -a exec -d 'run a program without MPTCP support over MPTCP'
complete -c nm-mptcp -n '__nm_mptcp_none' -a unit -d 'let a systemd unit use MPTCP, by a drop-in'
complete -c nm-mptcp -n '__nm_mptcp_none' -a apply -d 'configure the kernel now, also without the service'
complete -c nm-mptcp -n '__nm_mptcp_none' -a clear -d 'remove what nm-mptcp added, and restore settings'
complete -c nm-mptcp -n '__nm_mptcp_none' -a daemon -d 'run the service in the foreground'

complete -c nm-mptcp -n '__nm_mptcp_command status explain watch check mode config exec unit apply clear daemon' -s h -l help -d 'show this help message and exit'
complete -c nm-mptcp -n '__nm_mptcp_command status explain check mode apply clear daemon' -l config -rF -d 'read this file instead of nm-mptcp.conf and conf.d'
complete -c nm-mptcp -n '__nm_mptcp_command status explain check mode config' -l json -d 'print one JSON document'
complete -c nm-mptcp -n '__nm_mptcp_command status' -l all -d 'show also addresses that cannot be paths'
complete -c nm-mptcp -n '__nm_mptcp_at explain 0' -a '(__nm_mptcp_what)'
complete -c nm-mptcp -n '__nm_mptcp_command watch' -l json -d 'print a line of JSON for each event'
complete -c nm-mptcp -n '__nm_mptcp_command watch' -l lines -d 'print a line for each event, also on a terminal'
complete -c nm-mptcp -n '__nm_mptcp_command watch' -l rates -d 'with --json, also what each link carries'
complete -c nm-mptcp -n '__nm_mptcp_command watch' -l all -d 'show also interfaces that have no path'
complete -c nm-mptcp -n '__nm_mptcp_command watch' -l interval -x -d 'between measurements, in seconds'
complete -c nm-mptcp -n '__nm_mptcp_command check' -l all -d 'show also checks that do not apply here'
complete -c nm-mptcp -n '__nm_mptcp_command check' -l fix -d 'run the safe remedies, each after confirmation'
complete -c nm-mptcp -n '__nm_mptcp_command check' -l yes -d 'with --fix, without confirmation'
complete -c nm-mptcp -n '__nm_mptcp_command check' -l reach -xa '(__fish_print_hostnames)' -d 'check whether HOST can be reached by MPTCP'
complete -c nm-mptcp -n '__nm_mptcp_command check' -l report -rF -d 'write everything for a bug report'
complete -c nm-mptcp -n '__nm_mptcp_command check' -l mask -d 'with --report, mask addresses and names'
complete -c nm-mptcp -n '__nm_mptcp_command mode' -l reset -d 'back to the configured mode'
complete -c nm-mptcp -n '__nm_mptcp_at mode 0' -a 'auto handover interactive aggregate off'
complete -c nm-mptcp -n '__nm_mptcp_command config' -l check -d 'only say what is wrong'
complete -c nm-mptcp -n '__nm_mptcp_command config' -l reload -d 'have the service read its configuration again'
complete -c nm-mptcp -n '__nm_mptcp_command config; and contains -- --check (commandline -opc)' -F
complete -c nm-mptcp -n '__nm_mptcp_command exec unit' -l method -xa 'auto ebpf preload' -d 'how it is done'
complete -c nm-mptcp -n '__nm_mptcp_command exec' -l user -xa '(__fish_complete_users)' -d 'run it as this user'
complete -c nm-mptcp -n '__nm_mptcp_command exec' -l check -d 'run it under strace, and report what MPTCP refused'
complete -c nm-mptcp -n '__nm_mptcp_command exec' -s q -l quiet -d 'do not say beforehand what cannot work'
complete -c nm-mptcp -n '__nm_mptcp_command exec' -l dry-run -d 'show what would be executed, and run nothing'
complete -c nm-mptcp -n '__nm_mptcp_command exec' -l json -d 'as --dry-run, but print one JSON document'
complete -c nm-mptcp -n '__nm_mptcp_running' -a '(__nm_mptcp_program)'
complete -c nm-mptcp -n '__nm_mptcp_at unit 0' -a 'enable disable status'
complete -c nm-mptcp -n '__nm_mptcp_at unit 1' -a '(__nm_mptcp_units)'
complete -c nm-mptcp -n '__nm_mptcp_command unit' -l restart -d 'restart the unit, if it runs'
complete -c nm-mptcp -n '__nm_mptcp_command unit' -l dry-run -d 'show what would be done, and write nothing'
complete -c nm-mptcp -n '__nm_mptcp_command unit' -l json -d 'with status, print one JSON document'
complete -c nm-mptcp -n '__nm_mptcp_command clear' -l force -d 'end also connections that depend on it'
complete -c nm-mptcp -n '__nm_mptcp_command apply' -l dry-run -d 'print the ip commands that do the same'
