# SPDX-License-Identifier: GPL-2.0-or-later
# Completion of nm-mptcp for bash; it needs nothing of bash-completion.

# Lines of standard input that begin with what was typed, quoted as that is. They are others' words (the names of
# profiles), and nothing in them is ever expanded.
_nm_mptcp_lines() {
    local line quoted
    while IFS= read -r line; do
        [[ $line ]] || continue
        case $cur in
            \"*)
                quoted=${line//\\/\\\\} quoted=${quoted//\"/\\\"} quoted=${quoted//\$/\\\$} quoted=${quoted//\`/\\\`}
                [[ \"$quoted == "$cur"* ]] && COMPREPLY+=("$quoted")
                ;;
            \'*)
                [[ $line != *\'* && \'$line == "$cur"* ]] && COMPREPLY+=("$line")
                ;;
            *)
                printf -v quoted %q "$line"
                [[ $quoted == "$cur"* ]] && COMPREPLY+=("${quoted#"${cur%"${cur##*[:=]}"}"}")
                ;;
        esac
    done
}

_nm_mptcp_what() {
    local path
    for path in /sys/class/net/*; do
        printf '%s\n' "${path##*/}"
    done
    nmcli --escape no --get-values NAME connection show 2>/dev/null
}

# The units of a service manager, or with "ours" those that have a drop-in.
_nm_mptcp_units() {
    local path
    if [[ $1 == ours ]]; then
        for path in /etc/systemd/system/*.d/50-nm-mptcp.conf; do
            path=${path%/50-nm-mptcp.conf}
            [[ $path == *'*'* ]] || printf '%s\n' "$(basename "$path" .d)"
        done
    else
        systemctl list-unit-files --type=service,socket,slice --plain --no-legend --no-pager 2>/dev/null |
            while read -r path _; do printf '%s\n' "$path"; done
    fi
}

_nm_mptcp() {
    local commands="status explain watch check mode config exec unit apply clear daemon"
    local levels="off err warn info debug trace"
    local cur="" prev="" command="" options="" values="" wanted="" word number at=0
    local -a words=() places=() given=()
    COMPREPLY=()

    # bash breaks words at ":" and "=" too: an address or a profile's name is one word again, --config=FILE two.
    for ((number = 0; number <= COMP_CWORD; number++)); do
        word=${COMP_WORDS[number]}
        if ((number > 1)) && [[ $word == =* && ${words[-1]} == --* ]]; then
            words+=("") places+=("$number")
        elif ((number > 1)) && [[ ${COMP_WORDS[number - 1]} == = && ! ${words[-1]} ]]; then
            words[-1]=$word
        elif ((number > 1)) && [[ $word == [:=]* || ${words[-1]} == *[:=] ]]; then
            words[-1]+=$word
        else
            words+=("$word") places+=("$number")
        fi
    done
    cur=${words[-1]} prev=${words[-2]-}

    # What was given before: the command, and then its words that are no options.
    for ((number = 1; number < ${#words[@]} - 1; number++)); do
        word=${words[number]}
        case $word in
            --state-dir | --log-level | --config | --reach | --report | --interval | --method | --user)
                ((number++))
                ;;
            --)
                [[ $command == exec ]] && ((at = number + 1, number = ${#words[@]}))
                ;;
            -*) ;;
            *)
                if [[ ! $command ]]; then
                    command=$word
                elif [[ $command == exec ]]; then
                    ((at = number, number = ${#words[@]}))
                else
                    given+=("$word")
                fi
                ;;
        esac
    done

    case $prev in
        --state-dir)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$cur")
            return
            ;;
        --config | --report)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return
            ;;
        --log-level)
            mapfile -t COMPREPLY < <(compgen -W "$levels" -- "$cur")
            return
            ;;
        --method)
            mapfile -t COMPREPLY < <(compgen -W "auto ebpf preload" -- "$cur")
            return
            ;;
        --user)
            mapfile -t COMPREPLY < <(compgen -u -- "$cur")
            return
            ;;
        --reach)
            mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur")
            return
            ;;
        --interval)
            return
            ;;
    esac

    case $command in
        "")
            options="--help --version --state-dir --log-level" values=$commands
            ;;
        status)
            options="--help --config --json --all"
            ;;
        explain)
            options="--help --config --json"
            ((${#given[@]})) || wanted="what"
            ;;
        watch)
            options="--help --json --lines --rates --all --interval"
            ;;
        check)
            options="--help --config --all --json --fix --yes --reach --report --mask"
            ;;
        mode)
            options="--help --config --reset --json"
            ((${#given[@]})) || values="auto handover interactive aggregate off"
            ;;
        config)
            options="--help --check --reload --json"
            [[ $prev == --check ]] && wanted="file"
            ;;
        exec)
            options="--help --method --user --check --quiet --dry-run --json"
            wanted="program"
            ;;
        unit)
            options="--help --method --restart --dry-run --json"
            case ${#given[@]} in
                0) values="enable disable status" ;;
                1) wanted="unit" ;;
            esac
            ;;
        apply)
            options="--help --config --dry-run"
            ;;
        clear)
            options="--help --config --force"
            ;;
        daemon)
            options="--help --config"
            ;;
    esac

    if ((at)); then
        # The program's own completion, where there is one.
        if ((at == ${#words[@]} - 1)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$cur")
        elif declare -F _comp_command_offset >/dev/null; then
            _comp_command_offset "${places[at]}"
        elif declare -F _command_offset >/dev/null; then
            _command_offset "${places[at]}"
        else
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        fi
        return
    fi
    if [[ $cur == -* && $prev != -- ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        return
    fi
    if [[ $values ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$values" -- "$cur")
    fi
    case $wanted in
        what)
            _nm_mptcp_lines < <(_nm_mptcp_what)
            ;;
        unit)
            if [[ ${given[0]} == enable ]]; then
                _nm_mptcp_lines < <(_nm_mptcp_units)
            else
                _nm_mptcp_lines < <(_nm_mptcp_units ours)
            fi
            ;;
        file)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            ;;
        program)
            mapfile -t COMPREPLY < <(compgen -c -- "$cur")
            ;;
    esac
} && complete -F _nm_mptcp nm-mptcp
