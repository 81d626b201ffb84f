#!/usr/bin/env bash
# What other scripts ask of a model folder; to be sourced.

# Print the denoising steps that a model folder takes by default.
# usage: steps_of BIN MODEL_DIR
steps_of() {
    "$1/python" -c 'import pathlib, sys
from lemica_backend.config import MODEL_FILE, load_config
from lemica_backend.replay import newest_version
print(load_config(newest_version(pathlib.Path(sys.argv[1])) / MODEL_FILE).defaults.num_inference_steps)' "$2"
}

# Print a share of so many steps, in per cent: `share 50 20` is 10.
share() { echo $((($1 * $2 + 50) / 100)); }

# Print budgets, separated by commas: so many per cent of the steps, none below what the longest edge allows.
# usage: budgets STEPS MAX_SPAN PERCENT...
budgets() {
    local steps=$1 least=$((($1 + $2 - 2) / $2 + 1)) percent
    shift 2
    for percent in "$@"; do
        local at
        at=$(share "$steps" "$percent")
        echo $((at < least ? least : at))
    done | sort -nu | paste -sd,
}
