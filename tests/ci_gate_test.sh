#!/usr/bin/env bash
# Runs scripts/ci-gate.sh as a CI would, against two executables, the second slowed.
# usage: ci_gate_test.sh BIN_FOLDER SLOWDOWN [flags of dsa-bench gate]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$1 slowdown=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
complain() {
  printf 'ci_gate_test: %s\n' "$*" >&2
  exit 1
}

# A build of its own, slower: the wrapper slows what the gate times, as a slower kernel would.
cat >"$work/slow" <<SCRIPT
#!/bin/sh
exec "$bin/dsa-bench" "\$@" --inject-slowdown $slowdown
SCRIPT
chmod +x "$work/slow"
export DSA_RECORD_UNFIT_BUILD=1

gate() {
  local head=$1 code=0
  shift
  "$root/scripts/ci-gate.sh" --base "$bin/dsa-bench" --head "$head" --out "$work/out" -- "$@" \
    >"$work/log" 2>&1 || code=$?
  cat "$work/log"
  return "$code"
}

code=0
gate "$bin/dsa-bench" "$@" || code=$?
((code == 0)) || complain "an equal build ended with exit code $code, not 0"
grep -q same-build "$work/out/gate.md" || complain "gate.md does not say same-build"
rm -r "$work/out"
code=0
gate "$work/slow" "$@" || code=$?
((code == 6)) || complain "a build slowed by $slowdown ended with exit code $code, not 6"
grep -q regression "$work/out/gate.md" || complain "gate.md does not say regression"
code=0
"$root/scripts/ci-gate.sh" --base "$bin/dsa-bench" >"$work/log" 2>&1 || code=$?
((code == 1)) || complain "a call without --head ended with exit code $code, not 1"
for workflow in gate history; do
  grep -q "scripts/ci-gate.sh" "$root/.github/workflows/$workflow.yml" ||
    complain "$workflow.yml does not call scripts/ci-gate.sh"
done
