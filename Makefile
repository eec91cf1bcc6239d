# Two commands matter: `make tour` and `make test`. `make` alone lists the rest.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

# The marks of the tests that `make test` leaves out.
LONG := notebooks or slow or browser

.DEFAULT_GOAL := help
.PHONY: help install tour lab docs student pictures test test-long test-all check format bench clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## create .venv with the pinned packages (the others do it by themselves)

# torch stands in the same command as the rest, so that pip settles on the pinned CPU build.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "nadkit needs Python 3.11 or newer, $(PYTHON) is older; name another: make PYTHON=python3.12 ..."; exit 1; }
	@echo 'installing the pinned packages into $(VENV) (once; a few minutes)'
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet -c constraints.txt torch==2.13.0 -e '.[dev,docs]'
	@touch $@

tour: $(INSTALLED)  ## take the bundled network apart; writes build/tour.html
	$(PY) -m nadkit tour

# Options of JupyterLab: as root, in a container, it starts with LAB=--allow-root alone.
LAB ?=

lab: $(INSTALLED)  ## open JupyterLab on the tour (with options: LAB="--allow-root --no-browser")
	$(VENV)/bin/jupyter lab $(LAB) notebooks/00_tour.ipynb

docs: $(INSTALLED)  ## build the documentation, lessons executed; docs/_build/html/index.html
	$(PY) docs/make.py

STUDENT := build/student
WITHOUT := --TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_cell_tags=solution

student: $(INSTALLED)  ## copy the notebooks without solutions to build/student, and zip them
	@rm -rf $(STUDENT)
	$(PY) -m nbconvert --log-level=WARN --to notebook $(WITHOUT) --output-dir $(STUDENT) notebooks/*.ipynb
	@cp -r notebooks/pictures $(STUDENT)/
	@mkdir -p $(STUDENT)/tables && cp docs/*.csv $(STUDENT)/tables/ && cp docs/workshop/summary.md $(STUDENT)/
	@$(PY) -m zipfile -c $(STUDENT)/../nadkit-workshop.zip $(STUDENT)
	@echo 'the notebooks without solutions: $(STUDENT); zipped, with tables: nadkit-workshop.zip beside it'

pictures: $(INSTALLED)  ## run the notebooks in Chromium, take their static pictures (NOTEBOOKS="a.ipynb b.ipynb")
	$(PY) tests/browser/pictures.py $(or $(NOTEBOOKS),$(sort $(wildcard notebooks/*.ipynb)))

# On few cores several threads fight over small tensors: one thread is many times faster.
test test-long pictures: export OMP_NUM_THREADS = 1

test: $(INSTALLED)  ## the fast tests, and the examples in the docstrings
	$(PY) -m pytest -q -m "not ($(LONG))"

test-long: $(INSTALLED)
	$(PY) -m pytest -q -m "$(LONG)"

test-all: test test-long  ## the fast tests, then notebooks, slow and browser tests

check: $(INSTALLED)  ## formatting, lint, types and layering
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -q tests/test_layering.py

format: $(INSTALLED)  ## format the code, strip the notebooks
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/nbstripout notebooks/*.ipynb nadkit/data/*.ipynb

bench: $(INSTALLED)  ## measure the numbers of the design
	$(PY) tests/benchmarks/run.py

clean:  ## remove what was built; .venv stays
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis docs/_build
	find nadkit tests notebooks -name __pycache__ -prune -exec rm -rf {} +
