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

prompts=$model/calibration/prompts.txt
"$bin/lemica-planner" calibrate "$model" --prompts "$prompts" --max-span 10 \
    --operators residual-split --metric frames_l2 --budgets 6,8,10,12,14,17,20,25,30 --refine 8 \
    --journal runs/calibration/frames.jsonl --output "$model/calibration/graph.npz"
"$bin/lemica-planner" apply "$model/calibration/graph.npz" "$model" --names slow=25,medium=17,fast=10
head -n 2 "$prompts" > runs/calibration/naive_prompts.txt  # every edge of every prompt is 9,000 forwards
"$bin/lemica-planner" calibrate "$model" --prompts runs/calibration/naive_prompts.txt --max-span 10 --method naive \
    --journal runs/calibration/latte_shapes.jsonl --output "$model/calibration/naive.npz"
