# make train [ARGS="dataset=mnist model=resnet"]   set up, then train
# make test                                        set up, then lint, type-check and test
# make test-extras                                 install Ray and Optuna too, then test what needs them
# make test-browser                                install selenium too, then test in Debian's chromium:
#                                                  apt-get install chromium chromium-driver
# make test-interrupts                             a grid stopped at twenty random moments, minutes
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup train test test-extras test-browser test-interrupts lint clean
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

train: setup
	$(BIN)/python train.py $(ARGS)

test: lint
	$(BIN)/python -m pytest

test-extras: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,ray,search]"
	$(BIN)/python -m pytest -m extras

test-browser: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,browser]"
	$(BIN)/python -m pytest -m browser

test-interrupts: setup
	$(BIN)/python -m pytest -m interrupts

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
