# `make demo` shows FlowGauge at work, `make test` checks it, `make help` lists the rest.

PORT ?= 8000
SERVE ?= 1
# The first Python on this machine that is new enough.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

VENV := .venv
BIN := $(VENV)/bin
SOURCES := app flows training flowgauge.py clients examples bench tests

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-all lint bench bench-gpu bench-service bench-flows docs programs clean

help:
	@echo 'make demo    train on real pictures, measure, serve and inspect; made for a first look'
	@echo '               SERVE=0                       end by itself instead of serving until Ctrl-C'
	@echo '               PORT=8001                     another port than 8000'
	@echo '               DATA=/path CATEGORY=bottle    your own pictures, laid out as in docs/data.md'
	@echo 'make test    lint, types, unit and integration tests, a journey of each kind; what CI runs'
	@echo 'make test-fast  lint, types and the quick unit tests, in under two minutes; for working'
	@echo 'make test-all  everything: every database, preset, foreign client, browser journey and damage'
	@echo 'make lint    ruff and mypy alone'
	@echo 'make bench   speed and memory of inference beside anomalib; half an hour, into bench-results'
	@echo '               ANOMALIB_PYTHON=/path/to/python    an interpreter with anomalib, or one is made'
	@echo 'make bench-gpu  the same models on a CUDA device'
	@echo 'make bench-service  the service under load, overload, swaps of versions and kills'
	@echo 'make bench-flows  the flow library beside zuko, normflows and FrEIA'
	@echo 'make docs    the documentation as a site, in site/; fails on a broken link'
	@echo 'make clean   remove the environments and caches; data, models, runs and demo/ stay'
	@echo
	@echo 'Everything is installed into $(VENV), which is made with PYTHON=python3 (3.11 or newer).'
	@echo "pip's own settings apply: PIP_INDEX_URL for a mirror, PIP_EXTRA_INDEX_URL for CPU builds of torch."

demo: $(VENV)/.installed-demo
	@exec $(BIN)/python -m examples.demo --port '$(PORT)' --serve '$(SERVE)' \
		$(if $(DATA),--data '$(DATA)') $(if $(CATEGORY),--category '$(CATEGORY)')

# Three at a time, for on two cores some always wait for a server or a clock, and the tests of a file in one
# process, which share what they trained. Bytecode is kept for the hundreds of processes that the tests start, also
# where PYTHONDONTWRITEBYTECODE is set, as it often is in containers.
test test-fast test-all: export PYTHONDONTWRITEBYTECODE =
test: lint programs
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test-fast: lint
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow and not integration'

test-all: lint programs
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m ''

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy --strict --num-workers 2 $(SOURCES)

bench: $(VENV)/.installed-dev $(if $(ANOMALIB_PYTHON),,.bench-venv/.installed)
	$(BIN)/python -m bench.inference all

bench-gpu: $(VENV)/.installed-dev $(if $(ANOMALIB_PYTHON),,.bench-venv/.installed)
	$(BIN)/python -m bench.inference model anomalib --device cuda --out bench-results/inference-gpu

bench-service: $(VENV)/.installed-dev
	$(BIN)/python -m bench.service all

# Other libraries of flows, which nothing else needs, come with the extra.
bench-flows: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -W ignore -m bench.flows all

docs: $(VENV)/.installed-dev
	$(BIN)/zensical build --strict --clean
	@echo 'Open site/index.html.'

# $(call provide,DEBIAN'S PACKAGES): those that are not there, in one go.
define provide
@missing=; for package in $(1); do \
  case $$package in \
    postgresql) ls /usr/lib/postgresql/*/bin/postgres ;; \
    chromium) command -v chromium || command -v chromium-browser ;; \
    nodejs) command -v node ;; \
    *) ls /usr/sbin/$$package || command -v $$package ;; \
  esac >/dev/null 2>&1 || missing="$$missing $$package"; \
done; \
if [ -z "$$missing" ]; then :; \
elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $$missing; \
else echo "not there, so what needs it is skipped:$$missing; on Debian: apt-get install$$missing"; fi
endef

# The tests start servers of their own from these programs, a browser, and node for the page's scripts; where one
# cannot be had, its tests are skipped.
programs:
	$(call provide,postgresql mosquitto nginx chromium nodejs)

clean:
	rm -rf $(VENV) .bench-venv build dist site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(SOURCES) docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-demo: pyproject.toml $(VENV)/.created
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[weights,elpv,openvino]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.created
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@

# anomalib needs other versions of libraries than FlowGauge.
.bench-venv/.installed: $(VENV)/.created
	$(BIN)/python -m venv .bench-venv
	.bench-venv/bin/python -m pip install --disable-pip-version-check --quiet 'anomalib[cpu,openvino]==2.7.*'
	@touch $@

# An environment that works is kept as it is, whoever made it.
$(VENV)/.created:
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  test -n '$(PYTHON)' || { \
	    echo "error: FlowGauge needs Python 3.11 or newer; found $$(python3 -V 2>&1)." >&2; \
	    echo 'Install one, or name it: make PYTHON=/path/to/python3.11' >&2; exit 1; }; \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "error: FlowGauge needs Python 3.11 or newer; PYTHON=$(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
	    exit 1; }; \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo 'error: $(PYTHON) cannot make virtual environments (no venv or ensurepip).' >&2; \
	    echo 'On Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }; \
	  echo 'making $(VENV) with $(PYTHON)'; $(PYTHON) -m venv $(VENV); }
	@touch $@
