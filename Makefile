# Everything happens in .venv here; the first call of any target makes it.

PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.complete

.DEFAULT_GOAL := help
.PHONY: help setup demo slurm-demo slurm-start slurm-stop test test-all coverage lint type bench chaos clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 20

setup: $(SETUP)  ## Install everything into .venv (some minutes, 7 GB)

$(SETUP): pyproject.toml constraints.txt
	@echo "Installing into .venv: some minutes, 7 GB, once."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(SETUP)  ## Make phantoms, train a small ViT on them, and generate its artifacts
	@$(BIN)/python -m artifactgen.demo
	@$(BIN)/generate_artifacts experiment=embeddings/demo

slurm-demo: demo  ## The demo through the SLURM command, on a two-node SLURM of this machine
	@slurm/dev/run $(BIN)/python -m distributed.launch hydra/launcher=submitit_slurm \
		hydra.launcher.nodes=2 hydra.launcher.cpus_per_task=1 experiment=embeddings/demo output_dir=demo/slurm_artifacts

slurm-start:  ## Start a two-node SLURM on this machine; `eval` what it prints
	@slurm/dev/start

slurm-stop:  ## End it, with its jobs
	@slurm/dev/stop

# Jobs of SLURM take both cores, so their tests run alone.
test: $(SETUP)  ## Run the tests, on two cores; where root may, SLURM is installed for them
	$(BIN)/python -m pytest -n 2 -m "not slow and not slurm"
	$(BIN)/python -m pytest -n 0 -m slurm

test-all: test  ## Run the slow tests too: every architecture
	$(BIN)/python -m pytest -n 2 --dist load -m "slow and not slurm"

coverage: $(SETUP)  ## Run the tests and report which lines they reach
	$(BIN)/python -m pytest -n 2 -m "not slow and not slurm" --cov --cov-report=term:skip-covered

lint: $(SETUP)  ## Check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

type: $(SETUP)  ## Check types
	$(BIN)/mypy

bench: $(SETUP)  ## Measure exactness and speed against the reference libraries (half an hour)
	$(BIN)/python -m benchmarks.exactness.values
	$(BIN)/python -m benchmarks.exactness.precision
	$(BIN)/python -m benchmarks.exactness.families
	$(BIN)/python -m benchmarks.speed.startup
	$(BIN)/python -m benchmarks.speed.cam
	$(BIN)/python -m benchmarks.speed.explainer
	$(BIN)/python -m benchmarks.speed.attention
	$(BIN)/python -m benchmarks.speed.one_pass
	$(BIN)/python -m benchmarks.speed.reading
	$(BIN)/python -m benchmarks.speed.listing
	$(BIN)/python -m benchmarks.speed.drawing
	$(BIN)/python -m benchmarks.speed.pipeline
	$(BIN)/python -m benchmarks.speed.checks
	slurm/dev/run $(BIN)/python -m benchmarks.speed.nodes

chaos: $(SETUP)  ## Fifty whole runs beside processes that take CPU and memory: the same bytes (half an hour)
	PYTHONPATH=.:tests $(BIN)/python -m chaos.same_bytes --runs 50

clean:  ## Remove the demo's data, checkpoint and artifacts
	rm -rf demo
