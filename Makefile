# demo: four hospitals, on the light core.  test: all tests but test-heavy's, whose frameworks are too heavy for it.
# check: what CI runs.  bench: figures, as JSON.  docs: the site.
# ARGS is handed on: make test ARGS=tests/unit, make demo ARGS=--help
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q -c constraints.txt
ARGS ?=

.PHONY: demo test test-heavy test-oracle check lint examples bench docs clean
.DEFAULT_GOAL := demo

demo: .venv/.stamp-core
	@$(BIN)/hansa demo $(ARGS)

test: .venv/.stamp-dev
	$(BIN)/pytest -q -n 2 $(ARGS)

# JAX does not bear processes that fork, as other tests do: it is not imported beside them.
test-heavy: .venv/.stamp-heavy
	$(BIN)/pytest -q -n 2 -o addopts="-ra --strict-markers --strict-config --doctest-modules --import-mode=importlib" \
		tests/heavy src/hansa/adapters/jax src/hansa/adapters/tensorflow src/hansa/adapters/keras src/hansa/compat/tff $(ARGS)

# Types against TensorFlow Federated's own package, which caps ml_dtypes and protobuf: in an environment of its own.
test-oracle:
	$(PYTHON) -m venv .venv-oracle
	.venv-oracle/bin/python -m pip install -q -e . pytest hypothesis federated-language==0.5.4
	.venv-oracle/bin/python -m pytest -q -W default tests/property/test_types_oracle.py $(ARGS)

check: lint test examples docs

lint: .venv/.stamp-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

examples: .venv/.stamp-dev
	@set -e; root=$$PWD; work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; cd "$$work"; \
	for file in "$$root"/examples/*.py; do echo "== examples/$${file##*/} --small"; "$$root"/$(BIN)/python "$$file" --small; done

bench: .venv/.stamp-dev
	$(BIN)/python -m benchmarks $(ARGS)

docs: .venv/.stamp-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf .venv .venv-oracle site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Installs are repeated only when what they install from has changed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Hansa needs Python 3.11 or newer; say which: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

.venv/.stamp-core: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[plot]'
	@touch $@

.venv/.stamp-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ .venv/.stamp-core

.venv/.stamp-heavy: .venv/.stamp-dev
	$(PIP) -e '.[heavy]'
	@touch $@

.venv/.stamp-docs: .venv/.stamp-dev
	$(PIP) -e '.[docs]'
	@touch $@
