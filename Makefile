# Each target sets up its own virtual environment in .venv (Python 3.10 to 3.13) and runs.
#   make demo    train, draw and compare on a small model, without any download of weights
#   make test    all tests (those marked comfy need a real ComfyUI, see CONTRIBUTING.md)
#   make lint    ruff and mypy
#   make bench   training, beside the trainers whose variables are set, see benchmarks/README.md
#   make faults  kills, power cuts, full disks and bad inputs, see docs/reliability.md

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint bench faults clean

$(VENV)/.ready: pyproject.toml requirements.txt constraints.txt
	$(PYTHON) -c 'import sys; assert (3, 10) <= sys.version_info[:2], "Python 3.10 or newer is needed"'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.ready
	$(RUN) . demo

test: $(VENV)/.ready
	$(RUN) -m pytest --numprocesses 2 --dist loadgroup --durations=10

lint: $(VENV)/.ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m tools.types

bench: $(VENV)/.ready
	$(RUN) -m benchmarks

faults: $(VENV)/.ready
	$(RUN) -m tests.faults --write

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
