#!/usr/bin/env bash
# Installs the lemica backend into an empty folder that a Triton server can use. The Dockerfile runs nothing else.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: install_backend.sh PREFIX [--python PYTHON] [--skip PACKAGE]...

Makes PREFIX/venv (lemica and all it needs; start the server with PREFIX/venv/bin first on PATH) and
PREFIX/backends/lemica (the backend; copy that folder into the server's backend directory).

  --python PYTHON   the interpreter that the server's Python stub is linked to (default: python3); it needs pip
  --skip PACKAGE    leave PACKAGE and what only it needs out, and use the one that PYTHON's own packages hold, such
                    as a torch built for this machine; may be given several times

pip's own settings apply, such as PIP_INDEX_URL and PIP_EXTRA_INDEX_URL.
TEXT
}

fail() {
  echo "install_backend.sh: $*" >&2
  exit 1
}

prefix='' python=python3 skipped=()
while (($#)); do
  case $1 in
    --python) python=${2:?"--python needs an interpreter"}; shift 2 ;;
    --skip) skipped+=(--skip "${2:?"--skip needs a package"}"); shift 2 ;;
    -h | --help) usage; exit 0 ;;
    -*) fail "unknown option $1; see --help" ;;
    *) [[ -z $prefix ]] || fail "one PREFIX only; got $prefix and $1"; prefix=$1; shift ;;
  esac
done
[[ -n $prefix ]] || { usage >&2; exit 2; }

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
[[ -z $(ls -A "$prefix") ]] || fail "$prefix is not empty; give an empty folder"
"$python" -m pip --version >/dev/null || fail "$python has no pip"

# Whatever fails, PREFIX is empty again afterwards.
work=$(mktemp -d)
trap 'rm -rf "$work" "$prefix/venv" "$prefix/backends"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

echo "Building the lemica wheel ..."
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$work" "$source_dir"
wheels=("$work"/lemica-*.whl)

# A virtual environment, and no folder for PYTHONPATH: some stubs, Triton 24.10's for one, ignore that variable, but
# they take the environment whose python3 is first on PATH.
echo "Installing it with what the backend needs into $prefix/venv ..."
venv_options=(--without-pip)
((${#skipped[@]} == 0)) || venv_options+=(--system-site-packages)
"$python" -m venv "${venv_options[@]}" "$prefix/venv"
"$python" "$source_dir/scripts/backend_requirements.py" "${wheels[0]}" "${skipped[@]}" >"$work/requirements.txt"
# accelerate requires torch, so a torch that is to be skipped would come in again with it: it goes in by itself, and the
# backend's other requirements hold what else it needs.
grep -v '^accelerate' "$work/requirements.txt" >"$work/together.txt"
grep '^accelerate' "$work/requirements.txt" >"$work/alone.txt"
install=("$python" -m pip --python "$prefix/venv/bin/python" install --quiet --ignore-installed)
"${install[@]}" --requirement "$work/together.txt" "${wheels[0]}"
"${install[@]}" --no-deps --requirement "$work/alone.txt"

# A package that lifts numpy to 2 would break every string tensor of an older server: better no install than that one.
"$prefix/venv/bin/python" -I -c 'import lemica_backend, numpy
assert numpy.__version__.startswith("1."), f"numpy {numpy.__version__} was installed; the backend needs numpy < 2"'

install -D -m 644 "$source_dir/backend/model.py" "$prefix/backends/lemica/model.py"
trap 'rm -rf "$work"' EXIT
echo "Done. Put $prefix/venv/bin first on PATH, and copy $prefix/backends/lemica into the server's backend directory."
