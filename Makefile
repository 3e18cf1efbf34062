# Everything happens in .venv, made on first use. PYTHON=python3.12 picks another interpreter.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
FILE ?= agents.yml
PYTEST_ARGS ?= -n auto --dist worksteal
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: serve test lint types docs bench bench-peers chaos help

serve: .venv/.installed ## run the example pool: no key, no network (FILE=other.yml for another one)
	@exec $(BIN)/llmling serve $(FILE)

test: .venv/.installed-test ## run every test (PYTEST_ARGS="tests/cli -x" for a part)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: .venv/.installed-test ## style, format and the import contract
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports

types: .venv/.installed-test ## pyright, strict
	@$(BIN)/pyright

docs: .venv/.installed ## write docs/reference anew from the code
	@$(BIN)/python docs/generate.py

# As tested: litellm stands where our own way to the wire is proven, another release would be measured by the other way.
bench: .venv/.installed-test ## every figure beside a bare client and its gate; writes docs/performance.md (BENCH_ARGS="--only stages" for a part)
	@$(BIN)/python benchmarks/run.py --page docs/performance.md $(BENCH_ARGS)

bench-peers: .venv/.installed-test ## builds environments of other frameworks and measures them; writes docs/performance.md (BENCH_ARGS="--only agno")
	@$(BIN)/python benchmarks/peers.py --page docs/performance.md $(BENCH_ARGS)

chaos: .venv/.installed-test ## real kills under load, at full length; writes docs/reliability.md (CHAOS_KEEP=1 CHAOS_ARGS="-k kill" for a part)
	@test -n "$(CHAOS_KEEP)" || rm -f .venv/chaos.jsonl
	@CHAOS=1 CHAOS_NUMBERS=$(CURDIR)/.venv/chaos.jsonl $(BIN)/python -m pytest -m chaos --timeout 3600 --durations 0 $(CHAOS_ARGS)
	@$(BIN)/python tests/chaos.py .venv/chaos.jsonl docs/reliability.md "make chaos$(if $(CHAOS_KEEP), in parts)"

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{ printf "make %-11s %s\n", $$1, $$2 }'

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "llmling needs Python 3.11 or newer, and none was found. Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "llmling needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; exit 1; }
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip .venv

# Debian's Python may come without ensurepip; then the pip beside it installs into .venv.
install = pip() { if [ -x $(BIN)/pip ]; then $(BIN)/python -m pip "$$@"; else $(PYTHON) -m pip --python $(BIN)/python "$$@"; fi; }; \
	pip install --quiet --disable-pip-version-check

.venv/.installed: pyproject.toml | .venv/bin/python
	@echo "Installing llmling into .venv ..."
	@$(install) --editable .
	@touch $@

.venv/.installed-test: pyproject.toml | .venv/bin/python
	@echo "Installing llmling and its test tools into .venv ..."
	@$(install) --editable '.[test]'
	@$(install) --target .venv/agentspec --upgrade 'pyagentspec>=26.3.1,<27'
	@touch .venv/.installed $@
