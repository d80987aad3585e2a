# Every target sets up what it needs: a machine with Python 3.11+, make and pip is enough.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   := demo

.PHONY: help install demo test test-all lint format docs bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# torch comes first and on its own, so that its pinned build is taken before anything asks for it.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs,dev,cluster,teasar]"
	@touch $@

install: $(VENV)/.installed ## make .venv and install volprep with its development tools

demo: $(VENV)/.installed ## phantom data -> patch set -> one batch -> a tiny U-Net that learns
	rm -rf $(DEMO)
	$(BIN)/python scripts/make_demo_data.py $(DEMO)/data
	$(BIN)/volprep prepare configs/demo.yaml
	$(BIN)/volprep inspect $(DEMO)/patches
	$(BIN)/python scripts/train_from_config.py $(DEMO)/patches --epochs 3 --steps 30 --features 0.25

test: $(VENV)/.installed ## the test suite, without the slow tests
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(VENV)/.installed ## every test, slow ones included
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed ## ruff, ruff format --check, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed ## build the pages into site/
	$(BIN)/python scripts/generate_reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -q

bench: $(VENV)/.installed ## run every benchmark against its peer (downloads the peers)
	@for script in scripts/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## remove everything the other targets made
	rm -rf $(VENV) $(DEMO) bench build dist site .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
