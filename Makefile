# `make run` and `make test` are all a newcomer needs; the environment is made on the way.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check --quiet install --constraint constraints.txt

SOURCES := CMakeLists.txt $(shell find src -name '*.py' -o -name '*.cpp' -o -name '*.h' -o -name '*.j2')

CPP     := $(filter %.cpp %.h,$(SOURCES)) $(wildcard tests/native/*.cpp tests/native/*.h)

.PHONY: setup run test lint sanitize fuzz numerics bench bench-full clean

setup: $(VENV)/.installed

# PyTorch first and pinned: no other requirement can then bring another build of it, and the core is
# built against that very PyTorch, so without an isolated environment.
$(VENV)/.requirements: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) scikit-build-core cmake ninja
	$(PIP) --no-build-isolation --editable '.[dev]'
	touch $@

$(VENV)/.installed: $(VENV)/.requirements $(SOURCES)
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

run: setup
	$(BIN)/normkit compare

# A file's tests stay together: some share a run of the command that takes seconds. In the order of
# tests/conftest.py: files of few tests, which pytest would put last, are those that take minutes.
# Threads that wait sleep: one that spins takes its core from another worker's tests, two fifths of their time.
test: setup
	OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

# The C++ core under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer; needs Clang.
sanitize: setup
	VENV=$(VENV) tests/native/sanitize.sh

FUZZ_SECONDS ?= 600
fuzz: setup
	VENV=$(VENV) tests/native/fuzz.sh $(FUZZ_SECONDS)

bench: setup
	$(BIN)/normkit bench

# All cases, into benchmarks/results, from where README takes its figures. Goes on where it was left.
bench-full: setup
	$(BIN)/python benchmarks/full.py
	$(BIN)/python benchmarks/readme.py

# A million groups of numbers of every dtype over its whole range, into docs/numerics.md. Ten minutes.
numerics: setup
	$(BIN)/python -m tests.numerics --groups 1100000 --page docs/numerics.md

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP)

clean:
	rm -rf $(VENV) build
