#!/usr/bin/env bash
# Measure the paper's tables again, with three calibration draws in each and intervals over draws and held-out prompts.
# Interrupt it at will: the same command goes on where it stopped. docs/reproduction.md says what each table is, how many
# forwards it takes, and how long that is. The engine that model.json names runs the block stack, where it is built.
# usage: paper_tables.sh BIN [MODEL_DIR [OUT_DIR [OTHER_DIR]]]; BIN is the folder with python and lemica-planner. By default
# MODEL_DIR is latte_shapes and OUT_DIR benchmarks/results, or the folder NAME in it for another model. With OTHER_DIR, another
# model's folder, the plans of both are used on each other as well (the table `models`). For a smaller model or other
# runs: TABLES, COUNT (held-out prompts), SIZES, SAMPLES (of a draw of transfer, temporal and models), BUDGETS, STEPS,
# GUIDANCE, SPAN_SHARE, MAX_SPAN, WORKERS, PROMPTS (of the naive graph), HELD_OUT, POOL, WORK.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
model=${2:-model_repository/latte_shapes}
name=$(basename "$model")
own=/$name
[[ $name != latte_shapes ]] || own=''
out=${3:-benchmarks/results$own}
other=${4:-}
work=${WORK:-runs/paper}
draws=3
tables=${TABLES:-table3 table2 transfer temporal${other:+ models}}
# shellcheck source=scripts/model_steps.sh
source scripts/model_steps.sh
steps=$(steps_of "$bin" "$model")
span=${MAX_SPAN:-$(share "$steps" 20)}
mkdir -p "$work" "$out"

samples_in() {
    "$bin/python" -c 'import sys
from lemica_planner.graph_file import load_graph
print(len(load_graph(sys.argv[1]).samples))' "$1"
}

# Table 3 stands on naive graphs, a sample for each draw. The samples that the model ships with are not measured again.
naive_graphs() {
    local shipped=$model/calibration/naive.npz known=0 prompts=${PROMPTS:-$model/calibration/prompts.txt}
    if [[ -e $shipped ]]; then
        naive+=(--naive "$shipped")
        known=$(samples_in "$shipped")
    fi
    ((known < draws)) || return 0
    sed -n "$((known + 1)),${draws}p" "$prompts" > "$work/$name-naive_prompts.txt"
    "$bin/lemica-planner" calibrate "$model" --prompts "$work/$name-naive_prompts.txt" --max-span "$span" \
        --method naive --workers "${WORKERS:-0}" --journal "$work/$name-naive.jsonl" --output "$work/$name-naive.npz"
    naive+=(--naive "$work/$name-naive.npz")
}

paper() {
    local command=$1 file=$2
    shift 2
    "$bin/python" -m benchmarks.paper "$command" "$model" --prompts "${HELD_OUT:-benchmarks/held_out_prompts.txt}" \
        --count "${COUNT:-6}" --draws "$draws" --work "$work" --output "$out/paper_$file.json" "$@"
}

lazily=(--pool "${POOL:-benchmarks/calibration_pool.txt}" --span-share "${SPAN_SHARE:-0.2}" --workers "${WORKERS:-0}")
few=(--samples "${SAMPLES:-2}")
for table in $tables; do
    case $table in
        table3)
            naive=()
            naive_graphs
            paper table3 table3 "${naive[@]}" --budgets "${BUDGETS:-$(budgets "$steps" "$span" 16 20 26 34 50)}"
            ;;
        table2) paper table2 table2 --sizes "${SIZES:-1,2,5}" "${lazily[@]}" ;;
        transfer) paper transfer transfer --guidance-scale "${GUIDANCE:-7}" "${few[@]}" "${lazily[@]}" ;;
        temporal)
            paper temporal temporal --steps "${STEPS:-$(share "$steps" 60),$(share "$steps" 120)}" "${few[@]}" "${lazily[@]}"
            ;;
        models)
            [[ -n $other ]] || { echo "error: the table models needs OTHER_DIR, a second model folder" >&2; exit 2; }
            paper transfer models "$other" "${few[@]}" "${lazily[@]}"
            ;;
        *)
            echo "error: there is no table $table; there are table3, table2, transfer, temporal and models" >&2
            exit 2
            ;;
    esac
done
