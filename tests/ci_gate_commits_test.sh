#!/usr/bin/env bash
# scripts/ci-gate.sh --base-commit in a clone: the commit against itself, built in two folders whose paths differ in
# length, must be same-build; a base that does not build, or is unknown, must end with 1.
# usage: ci_gate_commits_test.sh [CLONE]    (CLONE, made if it is not there, stays)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
complain() {
  printf 'ci_gate_commits_test: %s\n' "$*" >&2
  exit 1
}
[[ -d $root/.venv && -d $root/data/shakespeare ]] && git -C "$root" rev-parse --quiet --verify HEAD >/dev/null || {
  echo "skipped: it needs git, .venv and the text beside the sources"
  exit 77
}

clone=${1:-}
if [[ -z $clone ]]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  clone=$work/clone
fi
[[ -d $clone ]] || git clone --quiet "$root" "$clone"
cd "$clone"
ln -sfn "$(realpath "$root/.venv")" .venv
mkdir -p data && ln -sfn "$(realpath "$root/data/shakespeare")" data/shakespeare
git config user.name test && git config user.email test@localhost

row=(--config presets/gate.toml --suites kernels --filter 'select_top_k.*' --kernels.lengths 512 --certificate=false
  --tolerances flops=0%,wrong_members=0)
# compare COMMIT CODE SENTENCE: what ci-gate.sh must end with and say.
compare() {
  local code=0
  scripts/ci-gate.sh --base-commit "$1" -- "${row[@]}" >log 2>&1 || code=$?
  cat log
  ((code == $2)) || complain "base $1: exit code $code, not $2"
  grep -q -- "$3" log || complain "base $1: nothing says \"$3\""
}

head=$(git rev-parse HEAD)
compare HEAD 0 "1 same-build"
grep -q same-build results/gate/gate.md || complain "gate.md does not say same-build"

# A base whose sources differ in a comment and in its commit only, in the work tree of the first call.
echo "// another commit" >>bench/main.cpp
git commit --quiet --all -m "Change a comment"
commented=$(git rev-parse HEAD)
git checkout --quiet --detach "$head"
compare "$commented" 0 "1 same-build"

echo "#error no such thing" >>bench/main.cpp
git commit --quiet --all -m "Break the build"
broken=$(git rev-parse HEAD)
git checkout --quiet --detach "$head"
compare "$broken" 1 "base $broken could not be built"
[[ ! -e results/gate/gate.md ]] || complain "the text of an earlier gate is still there"
