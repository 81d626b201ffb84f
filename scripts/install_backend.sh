#!/usr/bin/env bash
# Installs the lemica backend into an empty folder that a Triton server can use. The Dockerfile runs nothing else.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: install_backend.sh PREFIX [--python PYTHON] [--skip PACKAGE]...

Makes PREFIX/lib (lemica and all it needs; put it on PYTHONPATH) and PREFIX/backends/lemica/model.py (the backend;
copy or link that folder into the server's backend directory).

  --python PYTHON   the interpreter that the server's Python stub runs (default: python3); it needs pip
  --skip PACKAGE    leave PACKAGE and what only it needs out, because the interpreter brings its own, such as a
                    torch built for this machine; may be given several times

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

# All work happens beside its goal: whatever fails, PREFIX is left empty, and nothing is copied across file systems.
work=$(mktemp -d "$prefix/.install.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/tmp" "$work/lib"
export TMPDIR=$work/tmp PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

echo "Building the lemica wheel ..."
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$work" "$source_dir"
wheels=("$work"/lemica-*.whl)

echo "Installing it with what the backend needs into $prefix/lib ..."
"$python" "$source_dir/scripts/backend_requirements.py" "${wheels[0]}" "${skipped[@]}" >"$work/requirements.txt"
"$python" -m pip install --quiet --no-warn-conflicts --target "$work/lib" \
  --requirement "$work/requirements.txt" "${wheels[0]}"

# A package that lifts numpy to 2 would break every string tensor of an older server: better no image than that one.
(cd / && PYTHONPATH=$work/lib "$python" -c 'import lemica_backend, numpy
assert numpy.__version__.startswith("1."), f"numpy {numpy.__version__} was installed; the backend needs numpy < 2"')

install -D -m 644 "$source_dir/backend/model.py" "$work/backends/lemica/model.py"
mv "$work/lib" "$work/backends" "$prefix"
echo "Done: PYTHONPATH=$prefix/lib and the backend folder $prefix/backends/lemica."
