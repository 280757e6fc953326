#!/usr/bin/env bash
# The gate for any CI: builds the base commit beside the checked-out one and compares them, or compares two binaries
# that are already there. Leaves the gate's folder and, for a pull request, gate.md below --out.
# Exit codes are those of `dsa-bench gate` (docs/gate.md): 0 fine, 2 too noisy, 4 wrong, 6 slower or worse.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
here=$PWD
cd "$root"

# A path of the caller's, for after the cd.
absolute() { [[ $1 == /* ]] && echo "$1" || echo "$here/$1"; }

base_commit="" base="" head="" out=results/gate
gate=()
while (($#)); do
  case $1 in
    --base-commit) base_commit=$2 && shift ;;
    --base) base=$(absolute "$2") && shift ;;
    --head) head=$(absolute "$2") && shift ;;
    --out) out=$(absolute "$2") && shift ;;
    --) shift && gate=("$@") && break ;;
    --help | -h)
      say "usage: scripts/ci-gate.sh --base-commit COMMIT [--out DIR] [-- flags of dsa-bench gate]
       scripts/ci-gate.sh --base PATH --head PATH [--out DIR] [-- flags of dsa-bench gate]

  --base-commit   built in a work tree of its own; head is the checked-out commit. In a pull request:
                  \$(git merge-base HEAD origin/main)
  --base, --head  executables that are already built
  --out           receives <time stamp>-gate/ with verdict.json, gate.md and charts (default $out)
Without flags of its own it measures presets/gate.toml."
      exit
      ;;
    *) fail "ci-gate.sh: unknown option $1; scripts/ci-gate.sh --help lists the options." ;;
  esac
  shift
done
[[ -n $base_commit || ( -n $base && -n $head ) ]] ||
  fail "ci-gate.sh: give --base-commit COMMIT, or --base PATH and --head PATH; --help says more."
((${#gate[@]})) || gate=(--config presets/gate.toml)

# Everything a commit needs beside its sources is shared: the packages of .venv and the text.
build_commit() {
  (cd "$1" && configure release && build release dsa-bench dsa-report) >&2
}

if [[ -n $base_commit ]]; then
  scripts/setup.sh
  build_commit "$root"
  head=$root/build/release/bin/dsa-bench
  tree=$root/build/gate-base
  git worktree remove --force "$tree" 2>/dev/null || rm -rf "$tree"
  git worktree prune
  git worktree add --quiet --detach "$tree" "$base_commit" ||
    fail "ci-gate.sh: --base-commit $base_commit cannot be checked out; fetch it first (fetch-depth: 0)."
  ln -sfn "$root/.venv" "$tree/.venv"
  mkdir -p "$tree/data" && ln -sfn "$root/data/shakespeare" "$tree/data/shakespeare"
  build_commit "$tree"
  base=$tree/build/release/bin/dsa-bench
fi

mkdir -p "$out"
rm -f "$out/gate.md"
before=$(ls -d "$out"/*-gate 2>/dev/null || true)
code=0
"$head" gate --base "$base" --head "$head" --out "$out" "${gate[@]}" || code=$?
# Only a folder that this call made.
folder=$(comm -13 <(sort <<<"$before") <(ls -d "$out"/*-gate 2>/dev/null | sort) | tail -n 1)
report=$(dirname "$head")/dsa-report
[[ -x $report ]] || report=$root/build/release/bin/dsa-report
if [[ -n $folder && -f $folder/verdict.json ]]; then
  "$report" gate "$folder" >&2 || say "ci-gate.sh: no gate.md: dsa-report failed." >&2
  cp -f "$folder/gate.md" "$out/gate.md" 2>/dev/null || true
fi
exit "$code"
