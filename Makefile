# Everything a checkout needs, with GNU make and Python 3.11 or newer alone.

VENV := .venv
BIN := $(VENV)/bin
REAL := .real
REAL_PACKAGES := adb:adb bash:bash bazel:bazel-bootstrap chromium:chromium dash:dash dumb-init:dumb-init fakeroot:fakeroot \
    git:git gpg:gpg gpg-agent:gpg-agent npm:npm psql:postgresql redis-server:redis-server ssh-agent:openssh-client \
    sshd:openssh-server watchman:watchman Xvfb:xvfb
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

# A virtual environment whose interpreter was removed or upgraded away is made anew.
ifneq ($(shell $(BIN)/python -c 'print("works")' 2>/dev/null),works)
$(VENV)/.made: rebuild
endif

.PHONY: help run test test-real real-packages lint bench soak chaos compiled clean rebuild

help:
	@echo 'make run    start the service on http://127.0.0.1:8000; Ctrl-C stops it (settings: README)'
	@echo 'make test   run every check and every test (TESTS=tests/faults for a part)'
	@echo 'make test-real  run celery, supervisord, npm and others through it, hundreds of times where it takes that'
	@echo 'make lint   run the checks only'
	@echo 'make bench  measure it beside conmon, s6-log and others (BENCH="capture --rounds 3" for a part)'
	@echo 'make soak   use the service for long and look for growth (SOAK="--cycles 100 --minutes 0.5" shortens it)'
	@echo 'make chaos  kill and stop its processes at random for an hour, check what is promised (CHAOS="--minutes 3 --seed 7" shortens it)'
	@echo 'make clean  remove what make and the tests have made'

run: compiled
	@exec $(BIN)/python -m gunicorn wsgi:app

# Two at a time where there are two processors. The tests of one file share a service, so they stay together, and the
# files keep their order, in which the longest does not come last.
test: lint compiled
	@scripts/test-packages
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 2 --dist loadfile --no-loadscope-reorder \
	    $(or $(TESTS),--ignore=tests/real)

# Programs of others, in pinned versions, in directories of their own. What can't be installed is named in one line, and
# the tests that need it say so.
test-real: compiled $(VENV)/.dev $(REAL)/python/.made $(REAL)/node/.made
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 2 --dist loadfile --no-loadscope-reorder \
	    $(or $(TESTS),tests/real)

real-packages:
	@scripts/test-packages $(REAL_PACKAGES)

lint: $(VENV)/.dev
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

bench: compiled
	$(BIN)/python -m bench $(BENCH)

soak: compiled
	$(BIN)/python -m bench.soak $(SOAK)

chaos: compiled
	@$(BIN)/python -m bench.chaos $(CHAOS)

# Where Python itself may write no byte code (PYTHONDONTWRITEBYTECODE), each zygote would compile its own.
compiled: $(VENV)/.runtime
	@$(BIN)/python -m compileall -q app

clean:
	rm -rf $(VENV) $(REAL) .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each installation has a stamp, older than its list of requirements when it is outdated.
$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(INSTALL) -r requirements-dev.txt
	@touch $@

$(VENV)/.runtime: requirements.txt requirements-quick.txt $(VENV)/.made
	$(INSTALL) -r requirements.txt
	@$(INSTALL) --only-binary :all: -r requirements-quick.txt \
	    || echo 'LLM Shell works without ssrjson (requirements-quick.txt says more; touch it, and make tries again)' >&2
	@touch $@

$(REAL)/python/.made: requirements-real.txt $(VENV)/.made
	@$(BIN)/python -m venv --clear $(REAL)/python
	@$(REAL)/python/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-real.txt \
	    && touch $@ || echo 'Some tests need what requirements-real.txt lists, which could not be installed' >&2

$(REAL)/node/.made: tests/real/package.json tests/real/package-lock.json | real-packages
	@mkdir -p $(REAL)/node && cp $^ $(REAL)/node
	@npm ci --prefix $(REAL)/node --silent --no-audit --no-fund && touch $@ \
	    || echo 'Some tests need what tests/real/package.json lists, which could not be installed' >&2

# Candidates are tried, not only looked for: version managers leave names on the path that do not run.
$(VENV)/.made:
	@for python in $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo 'LLM Shell needs Python 3.11 or newer: install it, or name it, as in: make run PYTHON=/opt/python/bin/python3' >&2; \
	    exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$found lacks its venv module: install it (on Debian and Ubuntu: apt install python3-venv)" >&2; \
	    exit 1; \
	fi; \
	"$$found" -m venv --clear $(VENV) && touch $@
