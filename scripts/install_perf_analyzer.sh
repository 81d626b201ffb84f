#!/usr/bin/env bash
# Installs Triton's perf_analyzer into a folder of its own, and checks that it starts.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: install_perf_analyzer.sh [FOLDER] [--python PYTHON]

Makes FOLDER/bin/perf_analyzer (default: runs/perf_analyzer). The binary is that of the tritonclient wheel 2.41.0, the
last one on PyPI that carries it; its wheel is unpacked, not installed, so no package changes. Two libraries that Debian
does not have by default, libb64 and libcudart 12, are taken from the nvidia-pytriton wheel in PYTHON's environment.

  --python PYTHON   an interpreter with pip and nvidia-pytriton (default: .venv/bin/python)
TEXT
}

fail() {
  echo "install_perf_analyzer.sh: $*" >&2
  exit 1
}

version=2.41.0
folder='' python=''
while (($#)); do
  case $1 in
    --python) python=${2:?"--python needs an interpreter"}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    -*) fail "unknown option $1; see --help" ;;
    *) [[ -z $folder ]] || fail "one FOLDER only; got $folder and $1"; folder=$1; shift ;;
  esac
done
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${folder:-$root/runs/perf_analyzer}
python=${python:-$root/.venv/bin/python}

libraries=$("$python" -c 'import importlib.util as u, pathlib
spec = u.find_spec("pytriton")
print(pathlib.Path(spec.origin).parents[1] / "nvidia_pytriton.libs" if spec else "")')
[[ -d $libraries ]] || fail "nvidia-pytriton is not installed for $python: pip install '.[server]' in a checkout of lemica"

mkdir -p "$folder/bin" "$folder/lib"
folder=$(cd "$folder" && pwd)
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$wheels" "tritonclient==$version"
"$python" - "$wheels" "$folder/bin" "$version" <<'PYTHON'
import pathlib, shutil, sys, zipfile

wheels, target, version = sys.argv[1:]
(wheel,) = pathlib.Path(wheels).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    member = f"tritonclient-{version}.data/data/bin/perf_analyzer"
    with archive.open(member) as source, (pathlib.Path(target) / "perf_analyzer.bin").open("wb") as binary:
        shutil.copyfileobj(source, binary)
PYTHON
chmod +x "$folder/bin/perf_analyzer.bin"

for name in libb64.so.0d libcudart.so.12; do
  stem=${name%%.so*} suffix=${name#*.so}
  found=("$libraries/$stem"-*.so"$suffix"*)
  [[ -e ${found[0]} ]] || fail "$libraries has no $name"
  ln -sfn "${found[0]}" "$folder/lib/$name"
done

cat >"$folder/bin/perf_analyzer" <<'WRAPPER'
#!/usr/bin/env bash
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export LD_LIBRARY_PATH="$here/../lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$here/perf_analyzer.bin" "$@"
WRAPPER
chmod +x "$folder/bin/perf_analyzer"

"$folder/bin/perf_analyzer" --version >/dev/null || fail "$folder/bin/perf_analyzer does not start; its message is above"
echo "perf_analyzer of tritonclient $version is ready: $folder/bin/perf_analyzer"
