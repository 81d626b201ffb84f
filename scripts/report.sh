#!/usr/bin/env bash
# Write the report page of an embedded model, and its charts as PNG files: from the graph that it ships with, and from
# what benchmarks wrote into RESULTS, which may be empty or missing (steps.json, other *.json with curves, *.png contact
# sheets). `latte_shapes` has benchmarks/results and out/report; another model NAME has the folders NAME in these.
# usage: report.sh BIN [MODEL_DIR [RESULTS [OUT_DIR]]]; BIN is the folder with lemica-planner
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
model=${2:-model_repository/latte_shapes}
name=$(basename "$model")
own=/$name
[[ $name != latte_shapes ]] || own=''
results=${3:-benchmarks/results$own}
out=${4:-out/report$own}
options=() curves=()
shopt -s nullglob
for file in "$results"/*.json; do
    if [[ $file == */steps.json ]]; then
        options+=(--steps "$file")
    elif grep -q '"curves"' "$file"; then
        curves+=(--curves "$file")
    fi
done
((${#curves[@]} == 0)) || options+=("${curves[@]}" --ours lemica --ours refined --ours ours --ours shipped)
for file in "$results"/*.png; do
    sheet=$(basename "$file" .png)
    options+=(--sheet "${sheet//[-_]/ }=$file")
done
mkdir -p "$out"
"$bin/lemica-planner" report "$model/calibration/graph.npz" --output "$out/index.html" --png "$out" "${options[@]}"
