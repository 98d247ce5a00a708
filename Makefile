# SPDX-License-Identifier: GPL-2.0-or-later
# nm-mptcp: `make help` lists the targets.

# Where `make install` puts things. NetworkManager and the system bus read their files below /usr only, so another PREFIX
# needs the folders of those two as well.
DESTDIR ?=
INSTALL ?= install
PREFIX ?= /usr
SYSCONFDIR ?= /etc
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
DATADIR ?= $(PREFIX)/share
PACKAGEDIR ?= $(LIBDIR)/nm-mptcp
DOCDIR ?= $(DATADIR)/doc/nm-mptcp
MANDIR ?= $(DATADIR)/man
BASHDIR ?= $(DATADIR)/bash-completion/completions
FISHDIR ?= $(DATADIR)/fish/vendor_completions.d
# Debian's zsh looks for what packages bring in a folder of its own.
ZSHDIR ?= $(DATADIR)/zsh/$(if $(wildcard /etc/debian_version),vendor-completions,site-functions)
CONFDIR ?= $(SYSCONFDIR)/nm-mptcp
# nm-mptcp reads what is shipped there, whatever PREFIX is.
DROPINDIR ?= /usr/lib/nm-mptcp/conf.d
NMLIBDIR ?= $(LIBDIR)/NetworkManager
UNITDIR ?= $(LIBDIR)/systemd/system
DBUSPOLICYDIR ?= $(DATADIR)/dbus-1/system.d
POLKITDIR ?= $(DATADIR)/polkit-1/actions
# All versions of iproute2 read it here; from 6.7 on it may be /usr/share/iproute2.
IPROUTE2DIR ?= $(SYSCONFDIR)/iproute2

VENV := .venv
TESTS := tests/test_lint.py tests/unit tests/kernel tests/networkmanager
PYTEST_ARGUMENTS ?=
# Tests at a time: one with a real NetworkManager mostly waits.
JOBS ?= 4
# `make` has installed what the tests need, so none may be skipped because it is missing.
# Only tests marked with a reason are retried (tests/support/retries.py).
PYTEST = $(RUN) NM_MPTCP_TESTS=all $(1)/bin/python -m pytest -n $(JOBS) $(2) $(PYTEST_ARGUMENTS)
# A whole run that passes without retries is kept under this name for the table of versions in docs/testing.md; one of chosen
# tests is none.
RUN = NM_MPTCP_RUN='$(if $(PYTEST_ARGUMENTS)$(filter-out file,$(origin TESTS)),,make $@)'
# The interpreters of `make test-matrix`: the first of each list that is there.
OLDEST_PYTHON ?= python3.11 python3
NEWEST_PYTHON ?= python3.15 python3.14 python3.13 python3.12 python3

export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTEST_ADDOPTS

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:

.PHONY: help
help:
	@echo "As root:"
	@echo "  make demo             see it work, in network namespaces of its own"
	@echo "  make test             all tests, with what they need (TESTS=, JOBS=$(JOBS))"
	@echo "  make install          install it (DESTDIR=, PREFIX=/usr); make uninstall"
	@echo "  make deps             Debian packages for demo, tests; install-deps: to run it"
	@echo "  make coverage         lines and branches that the tests run: docs/coverage.md"
	@echo "  make test-matrix      all tests with oldest, middle and newest libraries"
	@echo "  make test-fresh       demo and tests on a fresh Debian (FRESH=$(FRESH))"
	@echo "  make test-install     the Debian package in containers (ROOTS=$(ROOTS))"
	@echo "  make test-machine     tests in Debian machines (MACHINES='$(MACHINES)')"
	@echo "  make test-wifi        of these the package on real Wi-Fi, without long tests"
	@echo "  make chaos            random steps on the real thing (STEPS=, SEED=)"
	@echo "  make bench-NAME       $(wordlist 1,6,$(BENCHES))"
	@echo "                        $(wordlist 7,20,$(BENCHES))"
	@echo "As any user:"
	@echo "  make venv             $(VENV) with the command and the test tools"
	@echo "  make test-model       decision and plan on a model of the kernel (STEPS=)"
	@echo "  make mutation         changes of policy that no test notices (MUTANTS=)"
	@echo "  make test-unit        tests that need neither root nor NetworkManager"
	@echo "  make lint, format     ruff, mypy --strict, shellcheck; format the code"
	@echo "  make deb, rpm, dist   Debian package, RPM, source and wheel, in dist/"
	@echo "  make test-packages    build these and check their contents"
	@echo "  make versions         add what the last runs saw to docs/testing.md"
	@echo "  make clean            remove all that was made here"

# --- what the targets need ---------------------------------------------------------------------------------------------

.PHONY: deps install-deps venv
deps:
	@tools/deps test

install-deps:
	@tools/deps install

venv:
	@tools/venv $(VENV) -e '.[fast,test]'

# --- tests -------------------------------------------------------------------------------------------------------------

.PHONY: demo pictures versions test test-unit test-model chaos coverage test-matrix test-oldest test-middle test-newest lint format
demo: deps venv
	@$(VENV)/bin/python -m tests.demo

# docs/watch.svg and docs/status.svg, from what the commands themselves draw.
pictures: deps venv
	@$(VENV)/bin/python -m tests.pictures

# The table of versions in docs/testing.md, from what the last runs of the tests saw.
versions:
	@python3 tests/versions.py

test: deps venv
	@$(call PYTEST,$(VENV),$(TESTS))

test-unit: venv
	@$(VENV)/bin/python -m pytest tests/test_lint.py tests/unit $(PYTEST_ARGUMENTS)

# Decision and plan on a model of the kernel. `make test` takes some thousand steps, this as many as are wanted: the same in each
# run, others with SEARCH=yes.
STEPS ?= 200000

test-model: venv
	@$(if $(SEARCH),NM_MPTCP_SEARCH=yes) NM_MPTCP_STEPS=$(STEPS) $(VENV)/bin/python -m pytest -n $(JOBS) tests/unit/test_convergence.py $(PYTEST_ARGUMENTS)

# Each small change of policy, and whether a test notices it; some two a second with two processors. One part of it:
# MUTANTS='nm_mptcp.policy.plan.*'. Those that no test noticed are shown by `.venv-mutation/bin/mutmut show NAME`.
MUTANTS ?= *

.PHONY: mutation
mutation:
	@tools/venv -p "$$(tools/python $(NEWEST_PYTHON))" .venv-mutation -e '.[test]' mutmut
	@.venv-mutation/bin/mutmut run '$(MUTANTS)'
	@.venv-mutation/bin/mutmut results

# Random steps against the running service, with a real NetworkManager, bus and kernel: another sequence for each seed.
chaos: STEPS = 300
SEED ?= 1

chaos: deps venv
	@$(VENV)/bin/python -m tests.chaos --steps $(STEPS) --seed $(SEED) $(CHAOS_ARGUMENTS)

# docs/coverage.md. Measuring makes all slower, so a test that then comes late fails nothing here.
coverage: deps venv
	@NM_MPTCP_TESTS=all $(VENV)/bin/python -m tests.coverage_page -n $(JOBS) $(filter-out tests/test_lint.py,$(TESTS)) $(PYTEST_ARGUMENTS)

# Debian 12's libraries, those between, and today's. (Lint belongs to `make test`: it does not depend on the libraries.)
test-matrix: test-oldest test-middle test-newest

test-oldest: deps
	@tools/venv -p "$$(tools/python $(OLDEST_PYTHON))" .venv-oldest -e '.[test]' dbus-next==0.2.3 pyroute2==0.7.2 \
	    pyelftools==0.29 rich==13.3.1
	@$(call PYTEST,.venv-oldest,$(filter-out tests/test_lint.py,$(TESTS)))

test-middle: deps
	@tools/venv -p "$$(tools/python $(OLDEST_PYTHON))" .venv-middle -e '.[fast,test]' dbus-fast==1.84.2 pyroute2==0.7.7
	@$(call PYTEST,.venv-middle,$(filter-out tests/test_lint.py,$(TESTS)))

test-newest: deps
	@tools/venv -p "$$(tools/python $(NEWEST_PYTHON))" .venv-newest -e '.[fast,test]'
	@$(call PYTEST,.venv-newest,$(filter-out tests/test_lint.py,$(TESTS)))

# The README's commands as a newcomer types them, on a Debian made anew.
FRESH ?= bookworm

.PHONY: test-fresh
test-fresh:
	@tools/deps packages container
	@python3 -m tests.fresh $(FRESH) 'sudo make demo' \
	    'sudo make test$(if $(PYTEST_ARGUMENTS), PYTEST_ARGUMENTS="$(PYTEST_ARGUMENTS)")'

# Debian's own kernel, NetworkManager, Python and libraries; where a machine cannot be made, tests skip with the reason.
MACHINES ?= bookworm trixie

.PHONY: test-machine test-wifi
test-machine: venv
	@tools/deps packages deb machine arm64
	@$(MAKE) -s deb
	@$(RUN) NM_MPTCP_MACHINES='$(MACHINES)' $(VENV)/bin/python -m pytest tests/machine $(PYTEST_ARGUMENTS)

# The package on one machine with real Wi-Fi, in some minutes; where it cannot run it fails.
test-wifi: venv
	@tools/deps packages deb machine
	@$(MAKE) -s deb
	@$(RUN) NM_MPTCP_TESTS=all NM_MPTCP_MACHINES=trixie $(VENV)/bin/python -m pytest -s -m 'not long' \
	    tests/machine/test_wifi.py $(PYTEST_ARGUMENTS)

# What is in the packages, and what they do on a Debian system with systemd and NetworkManager: installed, booted, upgraded,
# removed. The systems are containers without a network, built once; where one cannot be made, tests skip with the reason.
ROOTS ?= trixie

.PHONY: test-packages test-install
test-packages: venv
	@tools/deps packages dist deb rpm check
	@rm -rf dist
	@$(MAKE) -s dist deb rpm
	@$(VENV)/bin/python -m pytest -n $(JOBS) tests/packages/test_contents.py $(PYTEST_ARGUMENTS)

test-install: venv
	@tools/deps packages deb container
	@$(MAKE) -s deb
	@$(RUN) NM_MPTCP_ROOTS='$(ROOTS)' $(VENV)/bin/python -m pytest tests/packages --ignore tests/packages/test_contents.py $(PYTEST_ARGUMENTS)

lint: venv
	@$(VENV)/bin/python -m pytest tests/test_lint.py $(PYTEST_ARGUMENTS)

format: venv
	$(VENV)/bin/ruff check --fix src tests tools/dist
	$(VENV)/bin/ruff format src tests tools/dist

# --- measurements ------------------------------------------------------------------------------------------------------

# `make bench-failover BENCH_ARGUMENTS='--repetitions 3 --only carrier'`: NetworkManager alone, with mptcpd, with nm-mptcp;
# failover: links are lost (25 minutes); behind: is any connection worse off than with NetworkManager alone (7); guard: what
# goes around tunnels (10); silent: a link is up and carries no packets (15), verdicts: what only looks like that (50;
# --rounds 5 for some); modes: a download under another mode; routes: a link with 10,000 routes; scale: 500 links,
# 100,000 routes; storms: a loss amid 1,000 events a second (1); idle: wake-ups in ten minutes; look: at 20,000 TCP sockets;
# boot: is a boot slower with the package; switch: what it costs programs, in machines; commands: status, explain and
# check beside the service (with --before, of two checkouts in turn).
BENCH_ARGUMENTS ?=
BENCHES := failover behind guard silent verdicts modes routes scale storms idle look boot switch commands
BENCH_NEEDS = bench
bench-switch: BENCH_NEEDS = packages machine
bench-boot: BENCH_NEEDS = packages deb container
bench-boot: deb

.PHONY: $(BENCHES:%=bench-%)
$(BENCHES:%=bench-%): bench-%: venv
	@tools/deps $(BENCH_NEEDS)
	@$(VENV)/bin/python -m tests.bench.$* $(BENCH_ARGUMENTS)

# --- installation ------------------------------------------------------------------------------------------------------

# The interpreter that the installed command runs with. Unless it is given, it is the system's; where that one lacks the
# libraries, the one of $(VENV), and then this tree must stay.
PYTHON ?=

# Each has its section as its suffix.
PAGES := $(patsubst packaging/man/%.scd,%,$(wildcard packaging/man/*.scd))

.PHONY: install uninstall
install:
	@set -eu; \
	python='$(PYTHON)'; \
	if [ -z "$$python" ]; then \
	    python=/usr/bin/python3; \
	    libraries='import importlib.util as u; exit(not (u.find_spec("pyroute2") and (u.find_spec("dbus_fast") or u.find_spec("dbus_next"))))'; \
	    if ! $$python -I -c "$$libraries" 2>/dev/null; then \
	        if $(CURDIR)/$(VENV)/bin/python -I -c "$$libraries" 2>/dev/null; then \
	            python='$(CURDIR)/$(VENV)/bin/python'; \
	            echo "note: /usr/bin/python3 lacks pyroute2, or dbus-fast or dbus-next ('sudo make install-deps' brings them):"; \
	            echo "      the command will run with $$python, so this folder must stay"; \
	        else \
	            echo "note: /usr/bin/python3 lacks pyroute2, or dbus-fast or dbus-next: the command needs them"; \
	            echo "      (on Debian and Ubuntu: sudo make install-deps, or packages python3-pyroute2 and python3-dbus-fast)"; \
	        fi; \
	    fi; \
	fi; \
	umask 022; \
	put() { $(INSTALL) -D -m "$$1" "$$2" "$(DESTDIR)$$3"; }; \
	fill() { \
	    sed -e "s|@PYTHON@|$$python|" -e "s|@PACKAGE@|$$(realpath -m --relative-to='$(BINDIR)' '$(PACKAGEDIR)')|" \
	        -e 's|/\{0,1\}@BINDIR@|$(BINDIR)|' -e 's|@DOCDIR@|$(DOCDIR)|' "$$2" >"$$scratch"; \
	    put "$$1" "$$scratch" "$$3"; \
	}; \
	scratch=$$(mktemp); \
	trap 'rm -f "$$scratch"' EXIT; \
	rm -rf '$(DESTDIR)$(PACKAGEDIR)/nm_mptcp'; \
	for file in $$(cd src && find nm_mptcp -name __pycache__ -prune -o -type f -print); do \
	    put 0644 "src/$$file" "$(PACKAGEDIR)/$$file"; \
	done; \
	fill 0755 packaging/nm-mptcp.in $(BINDIR)/nm-mptcp; \
	for folder in dispatcher.d dispatcher.d/pre-up.d dispatcher.d/pre-down.d; do \
	    fill 0755 dispatcher.d/10-nm-mptcp $(NMLIBDIR)/$$folder/10-nm-mptcp; \
	done; \
	put 0644 packaging/NetworkManager/10-nm-mptcp.conf $(NMLIBDIR)/conf.d/10-nm-mptcp.conf; \
	for unit in nm-mptcp.service nm-mptcp-group@.service; do \
	    fill 0644 packaging/systemd/$$unit.in $(UNITDIR)/$$unit; \
	done; \
	put 0644 packaging/dbus/org.nm_mptcp1.conf $(DBUSPOLICYDIR)/org.nm_mptcp1.conf; \
	put 0644 packaging/polkit/org.nm_mptcp1.policy $(POLKITDIR)/org.nm_mptcp1.policy; \
	put 0644 packaging/iproute2/rt_protos.conf $(IPROUTE2DIR)/rt_protos.d/nm-mptcp.conf; \
	put 0644 packaging/iproute2/rt_tables.conf $(IPROUTE2DIR)/rt_tables.d/nm-mptcp.conf; \
	put 0644 packaging/completions/nm-mptcp.bash $(BASHDIR)/nm-mptcp; \
	put 0644 packaging/completions/_nm-mptcp $(ZSHDIR)/_nm-mptcp; \
	put 0644 packaging/completions/nm-mptcp.fish $(FISHDIR)/nm-mptcp.fish; \
	put 0644 packaging/conf/10-tethering.conf $(DROPINDIR)/10-tethering.conf; \
	$(INSTALL) -d -m 0755 '$(DESTDIR)$(CONFDIR)' '$(DESTDIR)$(CONFDIR)/conf.d'; \
	if [ -e '$(DESTDIR)$(CONFDIR)/nm-mptcp.conf' ] || [ -L '$(DESTDIR)$(CONFDIR)/nm-mptcp.conf' ]; then \
	    cmp -s packaging/conf/nm-mptcp.conf '$(DESTDIR)$(CONFDIR)/nm-mptcp.conf' \
	        || echo "note: $(CONFDIR)/nm-mptcp.conf is left as it is"; \
	else \
	    put 0644 packaging/conf/nm-mptcp.conf $(CONFDIR)/nm-mptcp.conf; \
	fi; \
	if command -v scdoc >/dev/null 2>&1; then \
	    for page in $(PAGES); do \
	        scdoc <"packaging/man/$$page.scd" >"$$scratch"; \
	        put 0644 "$$scratch" "$(MANDIR)/man$${page##*.}/$$page"; \
	    done; \
	else \
	    echo "note: without scdoc the manual pages are not installed"; \
	fi; \
	put 0644 README.md $(DOCDIR)/README.md; \
	put 0644 LICENSE $(DOCDIR)/LICENSE; \
	if [ -z '$(DESTDIR)' ]; then \
	    "$$python" -m compileall -q '$(PACKAGEDIR)/nm_mptcp' || true; \
	    echo "installed; now: systemctl daemon-reload && systemctl reload dbus NetworkManager && systemctl enable --now nm-mptcp"; \
	fi

# The service is stopped first by hand: `systemctl disable --now nm-mptcp; nm-mptcp clear`. Settings that somebody changed
# stay. The switch is two pins in the BPF file system; without them all sockets are TCP again.
uninstall:
	@if [ -z '$(DESTDIR)' ]; then rm -rf /sys/fs/bpf/nm-mptcp; fi
	rm -f '$(DESTDIR)$(SYSCONFDIR)/sysctl.d/90-nm-mptcp.conf'
	rm -rf '$(DESTDIR)$(PACKAGEDIR)/nm_mptcp'
	rm -f '$(DESTDIR)$(BINDIR)/nm-mptcp' \
	    '$(DESTDIR)$(NMLIBDIR)/dispatcher.d/10-nm-mptcp' \
	    '$(DESTDIR)$(NMLIBDIR)/dispatcher.d/pre-up.d/10-nm-mptcp' \
	    '$(DESTDIR)$(NMLIBDIR)/dispatcher.d/pre-down.d/10-nm-mptcp' \
	    '$(DESTDIR)$(NMLIBDIR)/conf.d/10-nm-mptcp.conf' \
	    '$(DESTDIR)$(UNITDIR)/nm-mptcp.service' '$(DESTDIR)$(UNITDIR)/nm-mptcp-group@.service' \
	    '$(DESTDIR)$(DBUSPOLICYDIR)/org.nm_mptcp1.conf' \
	    '$(DESTDIR)$(POLKITDIR)/org.nm_mptcp1.policy' \
	    '$(DESTDIR)$(IPROUTE2DIR)/rt_protos.d/nm-mptcp.conf' \
	    '$(DESTDIR)$(IPROUTE2DIR)/rt_tables.d/nm-mptcp.conf' \
	    '$(DESTDIR)$(DROPINDIR)/10-tethering.conf' \
	    '$(DESTDIR)$(BASHDIR)/nm-mptcp' '$(DESTDIR)$(ZSHDIR)/_nm-mptcp' '$(DESTDIR)$(FISHDIR)/nm-mptcp.fish' \
	    $(foreach page,$(PAGES),'$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(page)') \
	    '$(DESTDIR)$(DOCDIR)/README.md' '$(DESTDIR)$(DOCDIR)/LICENSE'
	@if cmp -s packaging/conf/nm-mptcp.conf '$(DESTDIR)$(CONFDIR)/nm-mptcp.conf'; then \
	    rm -f '$(DESTDIR)$(CONFDIR)/nm-mptcp.conf'; \
	elif [ -e '$(DESTDIR)$(CONFDIR)/nm-mptcp.conf' ]; then \
	    echo "note: $(CONFDIR)/nm-mptcp.conf was changed, and stays"; \
	fi
	-rmdir --ignore-fail-on-non-empty '$(DESTDIR)$(CONFDIR)/conf.d' '$(DESTDIR)$(CONFDIR)' '$(DESTDIR)$(DROPINDIR)'
	-rmdir '$(DESTDIR)$(PACKAGEDIR)' '$(DESTDIR)$(DOCDIR)'

# --- packages ----------------------------------------------------------------------------------------------------------

# Built from the source distribution, into dist/. A Debian package built on one of bookworm, trixie and sid is for all; an
# RPM holds byte code of the Python that built it, so build it on the distribution that it is for.
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/nm_mptcp/__init__.py)
SDIST = dist/nm_mptcp-$(VERSION).tar.gz
BUILDPYTHON ?= /usr/bin/python3

.PHONY: dist sdist deb rpm
dist:
	@tools/deps packages dist
	@$(BUILDPYTHON) -I tools/dist dist

# What deb and rpm are built from.
sdist:
	@$(BUILDPYTHON) -I tools/dist dist sdist

deb:
	@tools/deps packages deb
	@$(MAKE) -s sdist
	@tools/package deb $(SDIST) dist

rpm:
	@tools/deps packages rpm
	@$(MAKE) -s sdist
	@tools/package rpm $(SDIST) dist

.PHONY: clean
clean:
	rm -rf .venv .venv-oldest .venv-middle .venv-newest .venv-mutation mutants build dist src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +
