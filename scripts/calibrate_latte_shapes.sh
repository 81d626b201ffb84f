#!/usr/bin/env bash
# Measure the embedded model's error graph and write the plans of every feasible budget into its config.pbtxt.
# Interrupt it at will: the same command goes on where it stopped.
# usage: calibrate_latte_shapes.sh BIN (the folder with lemica-planner)
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
model=model_repository/latte_shapes
mkdir -p runs/calibration

"$bin/lemica-planner" calibrate "$model" \
    --prompts "$model/calibration/prompts.txt" --seeds 1 --method naive --max-span 10 \
    --journal runs/calibration/latte_shapes.jsonl --output "$model/calibration/graph.npz"
"$bin/lemica-planner" apply "$model/calibration/graph.npz" "$model" --names slow=25,medium=17,fast=10
