#!/usr/bin/env bash
# One run a model: run_multi_families.sh [CONFIG] [OUT] [OPTION…]
#
#   CONFIG   a sweep; configs/families.yaml if not given
#   OUT      gets a folder a model; runs/<name of CONFIG> if not given
#   OPTION…  of `rayxai run`, such as --set data.limit=100
#
# A model that fails is logged in OUT/<model>.log and the next one is run. The same command
# continues: what is committed isn't run again. Exit codes: 0 all done, 2 some model or example
# failed, 3 no model could be run.
#
# PYTHON is the interpreter that has rayxai; the project's .venv, else python3, if not set.
set -uo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
config=${1:-$root/configs/families.yaml}
name=$(basename -- "$config")
out=${2:-runs/${name%.*}}
shift $(($# < 2 ? $# : 2))

python=${PYTHON:-$root/.venv/bin/python}
command -v "$python" > /dev/null || python=python3
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

# The run in progress gets the signal too; it would otherwise count as a model that failed.
trap 'echo "stopped; the same command continues" >&2; exit 130' INT TERM

sets=()
previous=
for option in "$@"; do
    if [[ $previous == --set ]]; then sets+=("$option"); fi
    if [[ $option == --set=* ]]; then sets+=("${option#--set=}"); fi
    previous=$option
done
models=$("$python" -m jobs.each_model "$config" ${sets[@]+"${sets[@]}"}) || exit 3

mkdir -p -- "$out" || exit 3
done_=0
partly=()
failed=()
while IFS=$'\t' read -r model override; do
    echo "== $model: $out/$model"
    "$python" -m jobs.cli run "$config" --out "$out/$model" "$@" --set "$override" \
        < /dev/null 2>&1 | tee -a -- "$out/$model.log"
    code=${PIPESTATUS[0]}
    case $code in
        0) done_=$((done_ + 1)) ;;
        2) partly+=("$model") ;;
        *)
            echo "== $model failed (exit code $code), see $out/$model.log; going on" >&2
            failed+=("$model")
            ;;
    esac
done <<< "$models"

total=$((done_ + ${#partly[@]} + ${#failed[@]}))
echo "== $done_ of $total models done"
if ((${#partly[@]})); then echo "== some examples failed: ${partly[*]}"; fi
if ((${#failed[@]})); then echo "== failed: ${failed[*]}"; fi
if ((${#failed[@]} == total)); then exit 3; fi
if ((total > 1)); then
    echo "== one report of all, from the same evaluations: rayxai run $config --out $out/all"
fi
if ((${#failed[@]} + ${#partly[@]})); then exit 2; fi
