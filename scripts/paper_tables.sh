#!/usr/bin/env bash
# Measure the paper's tables again, with the options of the logged ones: three calibration draws in each, intervals over
# draws and held-out prompts. Interrupt it at will: the same command goes on where it stopped. docs/reproduction.md says
# what each table is, and how long they take.
# usage: paper_tables.sh BIN [MODEL_DIR [OUT_DIR]]; BIN is the folder with python and lemica-planner. Other options for a
# smaller model or a shorter run: COUNT (held-out prompts), SIZES, BUDGETS, STEPS, GUIDANCE, SPAN_SHARE, MAX_SPAN, WORKERS,
# PROMPTS (of the naive graph), HELD_OUT, POOL, TABLES.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
model=${2:-model_repository/latte_shapes}
out=${3:-benchmarks/results}
work=runs/paper/$(basename "$model")
draws=3
tables=${TABLES:-table3 table2 transfer temporal}
mkdir -p "$work" "$out"

# Table 3 stands on a naive graph; a sample for each draw. What the model ships with of it is not measured again.
naive_graph() {
    local prompts=${PROMPTS:-$model/calibration/prompts.txt}
    head -n "$draws" "$prompts" > "$work/naive_prompts.txt"
    if [[ ! -e $work/naive.jsonl && -e $model/calibration/naive.jsonl ]]; then
        cp "$model/calibration/naive.jsonl" "$work/naive.jsonl"
    fi
    "$bin/lemica-planner" calibrate "$model" --prompts "$work/naive_prompts.txt" --max-span "${MAX_SPAN:-10}" \
        --method naive --workers "${WORKERS:-0}" --journal "$work/naive.jsonl" --output "$work/naive.npz"
}

paper() {
    local name=$1
    shift
    "$bin/python" -m benchmarks.paper "$name" "$model" --prompts "${HELD_OUT:-benchmarks/held_out_prompts.txt}" \
        --count "${COUNT:-8}" --draws "$draws" --work "$work" --output "$out/paper_$name.json" "$@"
}

lazily=(--pool "${POOL:-benchmarks/calibration_pool.txt}" --span-share "${SPAN_SHARE:-0.2}" --workers "${WORKERS:-0}")
for table in $tables; do
    case $table in
        table3)
            naive_graph
            paper table3 --naive "$work/naive.npz" --budgets "${BUDGETS:-8,10,12,14,17,20,25}"
            ;;
        table2) paper table2 --sizes "${SIZES:-1,2,5,10}" "${lazily[@]}" ;;
        transfer) paper transfer --guidance-scale "${GUIDANCE:-7}" --samples 2 "${lazily[@]}" ;;
        temporal) paper temporal --steps "${STEPS:-30,60}" --samples 2 "${lazily[@]}" ;;
        *)
            echo "error: there is no table $table; there are table3, table2, transfer, temporal" >&2
            exit 2
            ;;
    esac
done
