# The verbs of the project; `make` alone lists them. Each sets up what it needs on a Debian machine that has
# nothing but Python 3.11 or newer.

# The system's own, if it is new enough: the service could not run one from somebody's home, and Debian builds it for
# speed.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/)python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check --quiet

# What the tests run for real; the end of the list is for tests of the service and of previews.
SERVERS := postfix dovecot-core dovecot-imapd dovecot-lmtpd dovecot-pop3d postgresql openssl iproute2 strace faketime systemd chromium

# Servers that change their user need root. An ordinary user is root in a user namespace.
ROOT := $(shell [ "$$(id -u)" = 0 ] || echo unshare --map-root-user --map-auto --)

# Tests spend about half of their time waiting, for servers above all.
WORKERS := $(shell echo $$(( ($$(nproc) * 3 + 1) / 2 )))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check format fuzz bench servers lock clean

help: ## list these verbs
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: $(VENV)/.runtime ## send two activities through the simulator and show what bounced
	@$(BIN)/mailbound demo

test: check servers ## check, then run all tests against real servers
	$(ROOT) $(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

check: $(VENV)/.development ## lint, format, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.development ## put the code into its form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

fuzz: $(VENV)/.fuzzing ## look for mail that the readers cannot bear; `make fuzz ARGS="--seconds 3600"`
	$(BIN)/python tests/fuzz_reading.py $(ARGS)

bench: servers $(VENV)/.development ## measure, and hold it to the goals; `make bench ARGS="--only sending"`
	@.ci/debian gcc libc6-dev
	$(ROOT) $(BIN)/python bench $(ARGS)

servers: ## install the Debian packages that the tests run
	@.ci/debian $(SERVERS) $(if $(ROOT),uidmap)

lock: $(VENV)/.lock ## pin anew what pyproject.toml asks for; `make lock ARGS=--upgrade` takes what is new
	$(COMPILE) --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean: ## remove what these verbs made, except what apt installed
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find daemon tests -name __pycache__ -prune -exec rm -rf {} +

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(ARGS)

# --- the virtual environment ------------------------------------------------------------------------------

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/pip
	$(PIP) install --require-hashes --requirement requirements.lock
	$(PIP) install --no-deps --editable .
	@touch $@

$(VENV)/.development: requirements-dev.lock $(VENV)/.runtime
	$(PIP) install --require-hashes --requirement requirements-dev.lock
	@touch $@

# Not locked: nothing that runs needs it, and where it does not install the search goes on without it.
$(VENV)/.fuzzing: $(VENV)/.development
	-$(PIP) install 'atheris>=3'
	@touch $@

$(VENV)/.lock: | $(BIN)/pip
	$(PIP) install 'uv>=0.9'
	@touch $@

# Debian keeps ensurepip in a package of its own.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mailbound needs Python 3.11 or newer")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/debian python3-venv
	$(PYTHON) -m venv $(VENV)
