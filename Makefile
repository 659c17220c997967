# For GNU make and FreeBSD's.  `make test' is all that a change has to pass.

PREFIX = /usr/local
DESTDIR =
PYTHON = .venv/bin/python
PYTEST = .venv/bin/pytest
# Tests wait more than they compute.
JOBS = 2

.PHONY: all help venv deps check test test-long demo bench fuzz mutate soak docs clean install

all: help

help:
	@echo 'make venv       a Python environment for all that follows, in .venv'
	@echo 'make deps       as root on Debian: QEMU and all else that tests can use'
	@echo 'make check      format, lint, types, layers, scripts, manuals'
	@echo 'make test       check, then every test but the long ones'
	@echo 'make test-long  the long ones: kill storms, soak, a sample of mutations'
	@echo 'make demo       what bhyved does, shown on a stand-in host'
	@echo 'make bench      how fast, and against whom'
	@echo 'make fuzz       every property, with many more examples'
	@echo 'make mutate     core/ changed in small ways, and the changes that no test notices (MODULES: some of it)'
	@echo 'make soak       a day of a busy host in little time'
	@echo 'make docs       the pages that are drawn from the program'
	@echo 'make install    rc script, manuals, completion, configuration to begin with (DESTDIR, PREFIX)'

venv: .venv/.stamp

.venv/.stamp: pyproject.toml .ci/venv
	sh .ci/venv

deps:
	sh .ci/deps

check: venv
	sh .ci/check

test: check
	$(PYTEST) -n $(JOBS) -m 'not long'

test-long: venv
	$(PYTEST) -n $(JOBS) -m long

fuzz: venv
	$(PYTEST) -n $(JOBS) -m 'hypothesis and not guest' --hypothesis-profile=fuzz

mutate: venv
	$(PYTHON) -m tests.mutation --jobs $(JOBS) $(MODULES)

soak: venv
	BHYVED_SOAK_S=$${BHYVED_SOAK_S:-600} BHYVED_SOAK_GUESTS=$${BHYVED_SOAK_GUESTS:-100} $(PYTEST) -s -m long tests/system/test_soak.py

bench: venv
	$(PYTHON) -m tests.bench

docs: venv
	for script in docs/draw_*.py; do $(PYTHON) $$script || exit 1; done

demo: venv
	$(PYTHON) docs/demo.py

# The Python package itself is pip's (or the port's) business; this is what has a place of its own on FreeBSD.
install:
	install -d $(DESTDIR)$(PREFIX)/etc/rc.d $(DESTDIR)$(PREFIX)/libexec/bhyved
	install -d $(DESTDIR)$(PREFIX)/etc/bhyved/vm.d $(DESTDIR)$(PREFIX)/etc/bhyved/template.d
	install -d $(DESTDIR)$(PREFIX)/etc/newsyslog.conf.d $(DESTDIR)$(PREFIX)/share/examples/bhyved
	install -d $(DESTDIR)$(PREFIX)/share/man/man5 $(DESTDIR)$(PREFIX)/share/man/man8
	sed -e 's|:=/usr/local/|:=$(PREFIX)/|' -e 's|="/usr/local/|="$(PREFIX)/|' rc.d/bhyved > $(DESTDIR)$(PREFIX)/etc/rc.d/bhyved
	chmod 755 $(DESTDIR)$(PREFIX)/etc/rc.d/bhyved
	install -m 755 rc.d/respawn $(DESTDIR)$(PREFIX)/libexec/bhyved/respawn
	install -m 644 etc/bhyved.toml.sample $(DESTDIR)$(PREFIX)/etc/bhyved
	for file in etc/template.d/*.toml; do install -m 644 $$file $(DESTDIR)$(PREFIX)/etc/bhyved/template.d/`basename $$file`.sample || exit 1; done
	install -m 644 etc/newsyslog.d/bhyved.conf $(DESTDIR)$(PREFIX)/etc/newsyslog.conf.d/bhyved.conf.sample
	@# What the daemon reads is there after a first install, and somebody's own after that.
	for sample in $(DESTDIR)$(PREFIX)/etc/bhyved/*.sample $(DESTDIR)$(PREFIX)/etc/bhyved/template.d/*.sample \
		$(DESTDIR)$(PREFIX)/etc/newsyslog.conf.d/bhyved.conf.sample; do \
		[ -e "$${sample%.sample}" ] || install -m 644 "$$sample" "$${sample%.sample}" || exit 1; \
	done
	install -m 644 etc/devfs.rules.sample $(DESTDIR)$(PREFIX)/share/examples/bhyved
	cp -R etc/prometheus etc/grafana etc/examples/hooks $(DESTDIR)$(PREFIX)/share/examples/bhyved
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	install -d $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 644 etc/completion/vmctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vmctl
	install -m 644 etc/completion/_vmctl $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	install -m 644 etc/completion/vmctl.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	for page in docs/man/*.5; do install -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man5 || exit 1; done
	for page in docs/man/*.8; do install -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man8 || exit 1; done

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
