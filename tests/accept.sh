#!/usr/bin/env bash
# Accepts the report that this build makes of tests/golden/record.json as the golden one. Review the
# diff as text before committing. Usage: tests/accept.sh [build folder, default build/release]
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
cp tests/golden/record.json tests/golden/failures.json "$run"
"$build/bin/dsa-report" make "$run" > "$run/said" 2>&1 || { cat "$run/said"; exit 1; }
# Without vl-convert the report tells how to get pictures, which is not what the golden one shows.
if grep -q "no pictures" "$run/said"; then cat "$run/said"; exit 1; fi
cp "$run/report.md" tests/golden/report.md
git --no-pager diff --stat -- tests/golden/report.md
