#!/usr/bin/env bash
# Make the virtual environment that every make target uses.
# usage: setup.sh PYTHON VENV
set -euo pipefail
python=$1 venv=$2

if ! command -v "$python" >/dev/null; then
    echo "lemica needs Python 3.11, and '$python' was not found. On Debian 12: apt-get install python3.11 python3.11-venv;" >&2
    echo "elsewhere name yours: make PYTHON=/path/to/python3.11 ..." >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    echo "lemica needs Python 3.11, and '$python' is $("$python" --version): name another with make PYTHON=..." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    echo "'$python' cannot make virtual environments. On Debian or Ubuntu: apt-get install python3.11-venv" >&2
    exit 1
fi

libdir=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
found=""
for folder in "$libdir" "$prefix/lib" /usr/lib/*-linux-gnu; do
    if [ -f "$folder/libpython3.11.so.1.0" ]; then found=$folder; fi
done
if [ -z "$found" ]; then
    echo "The Triton server loads libpython3.11.so.1.0, which is missing. On Debian or Ubuntu: apt-get install libpython3.11" >&2
    exit 1
fi

echo "Setting up $venv (a few minutes the first time: PyTorch, diffusers, a Triton server) ..."
# an environment without pip is what an interrupted run leaves
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 'numpy>=1.26,<2'
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
# Without them torch's eager mode serves the embedded models as well, only slower.
echo "Building the embedded models' block engines (a minute, once) ..."
for model in latte_shapes opensora_shapes; do
    HF_HUB_OFFLINE=1 "$venv/bin/lemica" compile "$(dirname "$0")/../model_repository/$model" >/dev/null 2>&1 ||
        echo "That of $model was not built; \`lemica compile model_repository/$model\` says why. The eager engine serves." >&2
done
echo "Environment ready."
