#!/usr/bin/env bash
# Calibrate the embedded model, write the plans of every feasible budget into its config.pbtxt, and measure the naive
# graph (the paper's operator and metric, every edge) that benchmarks compare them with.
# Interrupt it at will: the same command goes on where it stopped.
# usage: calibrate_latte_shapes.sh BIN (the folder with lemica-planner)
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
model=model_repository/latte_shapes
mkdir -p runs/calibration

"$bin/lemica-planner" calibrate "$model" --prompts "$model/calibration/prompts.txt" --max-span 10 \
    --operators residual-fitted --metric frames_l2 --budgets 25,17,10 \
    --journal runs/calibration/frames.jsonl --output "$model/calibration/graph.npz"
"$bin/lemica-planner" apply "$model/calibration/graph.npz" "$model" --names slow=25,medium=17,fast=10
"$bin/lemica-planner" calibrate "$model" --prompts "$model/calibration/prompts.txt" --max-span 10 --method naive \
    --journal runs/calibration/latte_shapes.jsonl --output "$model/calibration/naive.npz"
