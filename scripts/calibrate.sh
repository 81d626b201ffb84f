#!/usr/bin/env bash
# Calibrate an embedded model, write the plans of every feasible budget into its config.pbtxt, and measure the naive
# graph (the paper's operator and metric, every edge) that benchmarks compare them with. The prompts are those of
# MODEL_DIR/calibration/prompts.txt, the longest edge is a fifth of the steps, and budgets are shares of them.
# Interrupt it at will: the same command goes on where it stopped.
# usage: calibrate.sh BIN [MODEL_DIR]; BIN is the folder with python and lemica-planner. For a smaller model or a shorter
# run: BUDGETS, MAX_SPAN, REFINE (whole paths to try for each), NAIVE_SAMPLES.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
model=${2:-model_repository/latte_shapes}
# shellcheck source=scripts/model_steps.sh
source scripts/model_steps.sh
name=$(basename "$model")
work=runs/calibration
mkdir -p "$work"

steps=$(steps_of "$bin" "$model")
span=${MAX_SPAN:-$(share "$steps" 20)}
prompts=$model/calibration/prompts.txt
"$bin/lemica-planner" calibrate "$model" --prompts "$prompts" --max-span "$span" \
    --operators residual-split --metric frames_l2 --refine "${REFINE:-8}" \
    --budgets "${BUDGETS:-$(budgets "$steps" "$span" 12 16 20 24 28 34 40 50 60)}" \
    --journal "$work/$name-frames.jsonl" --output "$model/calibration/graph.npz"
"$bin/lemica-planner" apply "$model/calibration/graph.npz" "$model"
# every edge of every prompt: 9,000 forwards at 50 steps
head -n "${NAIVE_SAMPLES:-2}" "$prompts" > "$work/$name-naive_prompts.txt"
"$bin/lemica-planner" calibrate "$model" --prompts "$work/$name-naive_prompts.txt" --max-span "$span" --method naive \
    --journal "$work/$name-naive.jsonl" --output "$model/calibration/naive.npz"
