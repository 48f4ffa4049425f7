PYTHON ?= .venv/bin/python

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */\1\t/' | expand -t 10

install:  ## a virtual environment with everything that development needs
	python3 -m venv .venv && .venv/bin/pip install -e ".[test]"

check: format lint types layers fast  ## everything before a commit

format:  ## format the code
	$(PYTHON) -m ruff format .

lint:  ## find mistakes
	$(PYTHON) -m ruff check .

types:  ## check the types
	$(PYTHON) -m pyright

layers:  ## imports run downward only
	$(PYTHON) -m importlinter.cli lint

fast:  ## the tests that do not start Ray
	$(PYTHON) -m pytest -q -m "not ray"

test:  ## all tests
	$(PYTHON) -m pytest

.PHONY: help install check format lint types layers fast test
