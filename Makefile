# `make demo` shows FlowGauge at work, `make test` checks it, `make help` lists the rest.

PORT ?= 8000
SERVE ?= 1
# The first Python on this machine that is new enough.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

VENV := .venv
BIN := $(VENV)/bin
SOURCES := app flows training flowgauge.py clients examples bench tests docs/generate.py
# The versions that the tests ran with. Users of `make demo` get them too: pip resolves faster, and a release
# of yesterday cannot break a first look.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
# Tools of maintainers; neither users nor `make test` need them.
TOOLS := coverage pre-commit uv

.DEFAULT_GOAL := help
.PHONY: help demo format lint hooks test test-fast test-all test-lowest coverage docs reference constraints programs clean bench bench-gpu bench-service bench-flows

help:
	@echo 'To see it:'
	@echo '  make demo           train on real images, measure, serve and inspect'
	@echo '                        SERVE=0                      end instead of serving until Ctrl-C'
	@echo '                        PORT=8001                    another port than 8000'
	@echo '                        DATA=/path CATEGORY=bottle   your own images, see docs/how-to/prepare-data.md'
	@echo 'To change it:'
	@echo '  make format         sort imports, apply safe fixes and format the code'
	@echo '  make lint           check style and types with ruff and mypy'
	@echo '  make hooks          run format and lint checks before every git commit'
	@echo '  make test-fast      lint and the quick unit tests, in under two minutes'
	@echo '  make test           lint, unit and integration tests; what CI runs'
	@echo '  make test-all       every test: all databases, presets, clients, browser journeys and crashes'
	@echo '  make test-lowest    the quick unit tests with the oldest supported versions, in .venv-lowest'
	@echo '  make coverage       measure how much of the code make test runs; report in htmlcov/'
	@echo '  make docs           build the documentation site in site/; fails on a broken link'
	@echo '  make reference      write the pages of docs/reference that are generated from the code'
	@echo '  make constraints    write constraints.txt anew; UPGRADE=1 moves to the newest versions'
	@echo '  make programs       install the Debian packages that the tests use; needs root'
	@echo '  make clean          delete environments, caches and reports; data, models and runs stay'
	@echo 'To measure it, with results in bench-results/:'
	@echo '  make bench          speed and memory of inference beside anomalib, and over HTTP; half an hour'
	@echo '                        ANOMALIB_PYTHON=/path/to/python   an interpreter that has anomalib'
	@echo '  make bench-gpu      the same without HTTP, on a CUDA device'
	@echo '  make bench-service  the service under load, overload, floods, version swaps and crashes'
	@echo '  make bench-flows    density and speed of the flow library beside zuko, normflows and FrEIA'
	@echo
	@echo 'Everything is installed into $(VENV), which is made with PYTHON=python3 (3.11 or newer).'
	@echo "pip's own settings apply: PIP_INDEX_URL for a mirror, PIP_EXTRA_INDEX_URL for CPU builds of torch."
	@echo 'constraints and test-lowest use uv: UV_DEFAULT_INDEX for a mirror, UV_TORCH_BACKEND=cpu.'

demo: $(VENV)/.installed-demo
	@exec $(BIN)/python -m examples.demo --port '$(PORT)' --serve '$(SERVE)' \
		$(if $(DATA),--data '$(DATA)') $(if $(CATEGORY),--category '$(CATEGORY)')

# One process runs all tests of a file, because they share what they trained. On two cores three processes are
# faster than two: some always wait for a server or a clock.
PYTEST_ALL := pytest -n 3 --dist loadfile --no-loadscope-reorder
PYTEST_QUICK := pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow and not integration'

# The tests start hundreds of processes: keep their bytecode, even in containers that set this variable.
test test-fast test-all test-lowest coverage: export PYTHONDONTWRITEBYTECODE =
test: lint programs
	$(BIN)/$(PYTEST_ALL)

test-fast: lint
	$(BIN)/$(PYTEST_QUICK)

test-all: lint programs $(VENV)/.installed-ray
	$(BIN)/$(PYTEST_ALL) -m ''
	$(BIN)/$(PYTEST_ALL) --two-servers tests/app/routes

# Use Python 3.11: the oldest versions have no wheels for newer Pythons. Warnings are no errors here, because old
# versions use what newer ones beside them deprecate.
test-lowest: $(VENV)/.installed-tools
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip install --python .venv-lowest --resolution lowest-direct -e '.[dev]'
	.venv-lowest/bin/$(PYTEST_QUICK) -W default

coverage: $(VENV)/.installed-dev $(VENV)/.installed-tools programs
	$(BIN)/coverage erase
	$(BIN)/coverage run -m $(PYTEST_ALL)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet
	$(BIN)/coverage report

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy --strict $(SOURCES)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

hooks: $(VENV)/.installed-dev $(VENV)/.installed-tools
	$(BIN)/pre-commit install

# One file for all supported Pythons and systems: uv writes markers where they differ. torch and what belongs to
# it stay out, because builds for CPU and CUDA have different versions. Ray needs a package that has pre-releases only.
UNPINNED := torch|torchvision|triton|nvidia-.*|cuda-.*|setuptools
constraints: $(VENV)/.installed-tools
	printf '%s\n' $(TOOLS) | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--fork-strategy fewest --prerelease if-necessary --no-annotate --custom-compile-command 'make constraints' \
		$(if $(UPGRADE),--upgrade) --extra dev --extra ray -o constraints.txt pyproject.toml -
	sed -i.bak -E '/^($(UNPINNED))==/d' constraints.txt && rm constraints.txt.bak

bench: $(VENV)/.installed-dev $(if $(ANOMALIB_PYTHON),,.bench-venv/.installed)
	$(BIN)/python -m bench.inference all

bench-gpu: $(VENV)/.installed-dev $(if $(ANOMALIB_PYTHON),,.bench-venv/.installed)
	$(BIN)/python -m bench.inference model anomalib --device cuda --out bench-results/inference-gpu

bench-service: $(VENV)/.installed-dev
	$(BIN)/python -m bench.service all

# Only this target needs the other flow libraries.
bench-flows: $(VENV)/.installed-dev
	$(INSTALL) -e '.[bench]'
	$(BIN)/python -W ignore -m bench.flows all

docs: $(VENV)/.installed-dev
	$(BIN)/zensical build --strict --clean
	@echo 'Open site/index.html.'

reference: $(VENV)/.installed-dev
	$(BIN)/python -m docs.generate

# $(call provide,PACKAGES): install the Debian packages that are missing, or name them where only root may install.
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
else echo "Missing programs, their tests are skipped:$$missing. On Debian: apt-get install$$missing"; fi
endef

# The tests start servers from these programs, drive the browser and run the page's scripts with node. Where a
# program is missing, its tests are skipped.
programs:
	$(call provide,postgresql mosquitto nginx chromium nodejs redis-server)

clean:
	rm -rf $(VENV) .venv-lowest .bench-venv build dist site .cache .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis .coverage .coverage.* htmlcov
	find $(SOURCES) docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed-demo: pyproject.toml constraints.txt $(VENV)/.created
	$(INSTALL) -e '.[weights,elpv,openvino]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.created
	$(INSTALL) -e '.[dev]'
	@touch $@

# Large, and only the slow tests need it.
$(VENV)/.installed-ray: $(VENV)/.installed-dev
	$(INSTALL) -e '.[dev,ray]'
	@touch $@

# Without the project: `make constraints` must work when pyproject.toml and constraints.txt contradict each other.
$(VENV)/.installed-tools: constraints.txt $(VENV)/.created
	$(INSTALL) $(TOOLS)
	@touch $@

# anomalib needs other versions of libraries than FlowGauge.
.bench-venv/.installed: $(VENV)/.created
	$(BIN)/python -m venv .bench-venv
	.bench-venv/bin/python -m pip install --disable-pip-version-check --quiet 'anomalib[cpu,openvino]==2.7.*'
	@touch $@

# An environment that works is kept as it is.
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
