#!/usr/bin/env bash
# Write the report page of the embedded model, and its charts as PNG files, into out/report: from the shipped graph, and
# from what benchmarks wrote into benchmarks/results, which may be empty (steps.json,
# other *.json with curves, *.png contact sheets).
# usage: report_latte_shapes.sh BIN (the folder with lemica-planner)
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
options=()
shopt -s nullglob
for file in benchmarks/results/*.json; do
    if [[ $file == */steps.json ]]; then
        options+=(--steps "$file")
    elif grep -q '"curves"' "$file"; then
        options+=(--curves "$file")
    fi
done
for file in benchmarks/results/*.png; do
    name=$(basename "$file" .png)
    options+=(--sheet "${name//[-_]/ }=$file")
done
mkdir -p out/report
"$bin/lemica-planner" report model_repository/latte_shapes/calibration/graph.npz --names slow=25,medium=17,fast=10 \
    --ours lemica --ours refined --ours ours --output out/report/index.html --png out/report "${options[@]}"
