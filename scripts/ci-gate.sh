#!/usr/bin/env bash
# The gate for any CI: builds the base commit beside the checked-out one and compares them, or compares two binaries
# that are already there. Leaves the gate's folder and, for a pull request, gate.md below --out.
# Exit codes are those of `dsa-bench gate` (docs/gate.md): 0 fine, 2 too noisy, 4 wrong, 6 slower or worse. What keeps
# the gate from starting (a wrong flag, an unknown commit, a commit that does not build) is 1.
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
    --base-commit | --base | --head | --out)
      [[ $# -ge 2 && -n $2 ]] || fail "ci-gate.sh: $1 needs a value after it; --help says more."
      ;;&
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
Without flags of its own it measures presets/gate.toml. Paths in flags of dsa-bench gate begin at the project's root."
      exit
      ;;
    *) fail "ci-gate.sh: unknown option $1; scripts/ci-gate.sh --help lists the options." ;;
  esac
  shift
done
[[ -n $base_commit || ( -n $base && -n $head ) ]] ||
  fail "ci-gate.sh: give --base-commit COMMIT, or --base PATH and --head PATH; --help says more."
((${#gate[@]})) || gate=(--config presets/gate.toml)
if [[ -n $base_commit ]]; then
  # Asked before anything else: it would be a pity to hear it after a build.
  asked=$base_commit
  base_commit=$(git rev-parse --verify --quiet "$asked^{commit}") ||
    fail "ci-gate.sh: --base-commit $asked is no commit of this repository; fetch it first (fetch-depth: 0)."
fi
mkdir -p "$out"
rm -f "$out/gate.md"  # it would be taken for this call's

# check_out COMMIT FOLDER: a work tree, the one of the last call with its objects if it is there. Everything a commit
# needs beside its sources is shared: the packages of .venv and the text.
check_out() {
  if ! { git worktree list --porcelain | grep -xF "worktree $2" >/dev/null &&
    git -C "$2" checkout --quiet --force --detach "$1" 2>/dev/null; }; then
    git worktree remove --force "$2" 2>/dev/null || rm -rf "$2"
    git worktree prune
    git worktree add --quiet --detach "$2" "$1" || return
  fi
  ln -sfn "$root/.venv" "$2/.venv"
  mkdir -p "$2/data" && ln -sfn "$root/data/shakespeare" "$2/data/shakespeare"
}

if [[ -n $base_commit ]]; then
  # The gate itself ends with 130 and a folder to resume; before it there is nothing to keep.
  trap 'exit 130' INT TERM
  scripts/setup.sh >&2 || fail "ci-gate.sh: set-up failed (see above), so nothing was compared."
  build_programs "$root" dsa-bench dsa-report >&2 ||
    fail "ci-gate.sh: head $(git rev-parse HEAD) could not be built (see above), so nothing was compared."
  tree=$(pwd -P)/build/gate-base
  check_out "$base_commit" "$tree" || fail "ci-gate.sh: base $base_commit cannot be checked out in $tree (see above)."
  build_programs "$tree" dsa-bench >&2 ||
    fail "ci-gate.sh: base $base_commit could not be built (see above), so nothing was compared."
  head=$root/build/release/bin/dsa-bench base=$tree/build/release/bin/dsa-bench
  trap - INT TERM
fi

before=$(ls -d "$out"/*-gate* 2>/dev/null || true)
started=$(mktemp)
code=0
"$head" gate --base "$base" --head "$head" --out "$out" "${gate[@]}" || code=$?
# Only a folder that this call made, or the one it went on with.
folder=""
for ((i = 0; i < ${#gate[@]}; ++i)); do
  case ${gate[i]} in
    --resume) folder=${gate[i + 1]:-} ;;
    --resume=*) folder=${gate[i]#--resume=} ;;
  esac
done
[[ -z $folder || $folder/verdict.json -nt $started ]] || folder=""  # refused: what is there is an earlier call's
rm -f "$started"
[[ -n $folder ]] || folder=$(comm -13 <(sort <<<"$before") <(ls -d "$out"/*-gate* 2>/dev/null | sort) | tail -n 1)
report=$(dirname "$head")/dsa-report
[[ -x $report ]] || report=$root/build/release/bin/dsa-report
if [[ -n $folder && -f $folder/verdict.json ]]; then
  "$report" gate "$folder" >&2 || say "ci-gate.sh: no gate.md: dsa-report failed." >&2
  cp -f "$folder/gate.md" "$out/gate.md" 2>/dev/null || true
fi
exit "$code"
