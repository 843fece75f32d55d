# Two commands on a fresh machine: `make demo` and `make test`. Both make the environment
# .venv first, and make it again only when the dependencies change.

PYTHON ?= python3
VENV := .venv
DEMO := demo

.PHONY: demo test lint types docs dist

demo: $(VENV)/installed
	$(VENV)/bin/apexflow demo $(DEMO)

test: lint types
	# Compiles the kernels once, before two processes would at the same time.
	$(VENV)/bin/apexflow bench --smoke > /dev/null
	$(VENV)/bin/python -m pytest --numprocesses logical --dist worksteal

docs: $(VENV)/installed
	$(VENV)/bin/python -m mkdocs build --strict

dist: $(VENV)/installed
	$(VENV)/bin/python -m build

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/installed
	$(VENV)/bin/mypy

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@
