# Sourced by check_wheel.sh and check_existing_environment.sh: build the wheel, and create a virtual
# environment without it.
# FOLDER, the first argument, gets the environment (5 GB) and the output of the script. An existing
# environment is reused. Without FOLDER, everything is in a temporary folder and removed.
# Sets root, folder, venv, pip, wheel and constraints.
# shellcheck shell=bash disable=SC2034
root=$(unset CDPATH && cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
constraints=$(realpath "${CONSTRAINTS:-$root/constraints/default.txt}")
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    folder=$(realpath "$1")
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
venv=$folder/venv
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
[ -x "$venv/bin/python" ] || "${PYTHON:-python3.11}" -m venv "$venv"
rm -rf "$folder/dist"
"${pip[@]}" wheel --quiet --no-deps --wheel-dir "$folder/dist" "$root"
wheel=$(echo "$folder"/dist/pcm_plugin-*.whl)
unset PYTHONPATH
