.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two torch processes that spin while they wait would starve each other on a small machine.
export OMP_WAIT_POLICY := PASSIVE
export HF_HUB_OFFLINE := 1
# ONNX Runtime would report its use.
export ORT_DISABLE_TELEMETRY := 1

.PHONY: help setup demo test check format bench train evaluate calibrate report paper clean

help: ## Show what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@scripts/setup.sh $(PYTHON) $(VENV)
	@touch $(STAMP)

setup: $(STAMP) ## Make a virtual environment in .venv with everything in it

demo: $(STAMP) ## Boot a real Triton server, generate videos at every budget, write a page that compares them
	@$(BIN)/python -m demo

test: $(STAMP) ## Run every check and every test
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest

check: $(STAMP) ## Lint, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## Format the code
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: $(STAMP) ## Print the planner's and the server's figures
	@$(BIN)/python -m benchmarks.bench_solver
	@$(BIN)/python -m benchmarks.bench_plans model_repository/latte_shapes --prompts benchmarks/held_out_prompts.txt
	@$(BIN)/python -m demo --repeats 5 --output out/bench

LATTE := model_repository/latte_shapes/1/weights
OPEN_SORA := model_repository/opensora_shapes/1/weights

train: $(STAMP) ## Train the embedded models (hours on a CPU; run it again to carry on)
	@PYTHONPATH=training $(BIN)/python -m shapes train runs/shapes $(LATTE)
	@PYTHONPATH=training $(BIN)/python -m shapes_open_sora train runs/opensora $(LATTE) $(OPEN_SORA)

evaluate: $(STAMP) ## Check the embedded models on captions that they were never trained on
	@PYTHONPATH=training $(BIN)/python -m shapes evaluate $(LATTE)
	@PYTHONPATH=training $(BIN)/python -m shapes_open_sora evaluate $(OPEN_SORA)

# The embedded models that are there; each has its prompts for calibration beside its weights.
MODELS := $(patsubst %/config.pbtxt,%,$(wildcard $(foreach name,latte_shapes opensora_shapes,model_repository/$(name)/config.pbtxt)))

calibrate: $(STAMP) ## Measure the embedded models' error graphs and write their plans (hours on a CPU; resumable)
	@set -e; for model in $(MODELS); do scripts/calibrate.sh $(BIN) $$model; done

report: $(STAMP) ## Write a page about each embedded model's plans: its graph, and what benchmarks left in benchmarks/results
	@set -e; for model in $(MODELS); do scripts/report.sh $(BIN) $$model; done

paper: $(STAMP) ## Measure the paper's tables again on the embedded models (over an hour each on a CPU; resumable)
	@set -e; for model in $(MODELS); do scripts/paper_tables.sh $(BIN) $$model; done
	@$(if $(word 2,$(MODELS)),TABLES=models scripts/paper_tables.sh $(BIN) $(firstword $(MODELS)) "" $(word 2,$(MODELS)),true)

clean: ## Remove what the targets above made, but for the environment
	@rm -rf out runs build dist .pytest_cache .mypy_cache .ruff_cache
