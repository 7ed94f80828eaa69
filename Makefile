# make train [ARGS="dataset=mnist model=resnet"]   set up, then train
# make test                                        set up, then lint, check types and test
# make test-extras                                 install Ray, Optuna and dysts too, then run the tests that need them
# make test-browser                                install selenium too, then test the pages in Debian's chromium, after
#                                                  apt-get install chromium chromium-driver
# make test-slurm                                  test grids on a Slurm node that the tests start, after
#                                                  apt-get install munge slurmctld slurmd
# make test-interrupts                             stop a grid at twenty random moments; takes minutes
# make test-hydra-next                             run the tests under Hydra 1.4, in an environment of their own
# make test-gpu [DATA=FOLDER] [PACKAGES=FOLDER]    run the tests of a CUDA device and its benchmark, in eight minutes.
#                                                  Without a network, DATA has MNIST's files, and PACKAGES what PYTHON
#                                                  lacks beside torch (made elsewhere by pip install --target FOLDER ...)
# make test-compiled                               test compiled steps in every use of a field; takes minutes
# make test-cells                                  run two steps of every dataset x model x solver; takes minutes
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HYDRA_NEXT := "hydra-core>=1.4.0rc3" "omegaconf>=2.4.1rc1" "hydra-joblib-launcher>=1.4.0rc3" "hydra-submitit-launcher>=1.4.0rc3"
# One process for each core. The tests of a file share a process, and with it their fixtures.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 8 --dist loadfile
GPU_PYTHON := $(if $(PACKAGES),PYTHONPATH=$(CURDIR):$(abspath $(PACKAGES)) $(PYTHON),$(BIN)/python)

.PHONY: setup train test test-extras test-browser test-slurm test-interrupts test-hydra-next test-gpu test-compiled test-cells lint clean
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

train: setup
	$(BIN)/python train.py $(ARGS)

test: lint
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-extras: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,ray,search,dysts]"
	$(BIN)/python -m pytest -m extras

test-browser: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,browser]"
	$(BIN)/python -m pytest -m browser

test-slurm: setup
	$(BIN)/python -m pytest -m slurm

test-interrupts: setup
	$(BIN)/python -m pytest -m interrupts

test-hydra-next: $(VENV)-next/.ready
	$(VENV)-next/bin/python -m pytest $(SIDE_BY_SIDE)

$(VENV)-next/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-next
	grep -v -E '^(hydra-core|omegaconf)==' constraints.txt > $(VENV)-next/constraints.txt
	$(VENV)-next/bin/pip install --quiet --disable-pip-version-check -c $(VENV)-next/constraints.txt -e ".[dev]" $(HYDRA_NEXT)
	touch $@

test-gpu: $(if $(PACKAGES),,setup)
	$(GPU_PYTHON) -m pytest -m cuda tests/models tests/ode tests/tracking tests/trainers
	$(GPU_PYTHON) scripts/benchmark.py gpu $(if $(DATA),--data $(DATA))

test-compiled: setup
	$(BIN)/python -m pytest -m compiled

test-cells: setup
	$(BIN)/python -m pytest -m cells

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(VENV)-next .mypy_cache .ruff_cache .pytest_cache
