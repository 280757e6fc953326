#!/usr/bin/env bash
# From a clean clone to a report: sets up what is missing, builds, runs the quick suite. See --help.
# The last line printed is the report's path.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/common.sh"
cd "$root"

suite=(--config presets/quick.toml)
while (($#)); do
  take_setup_option "$@"
  if ((taken)); then
    shift "$taken"
    continue
  fi
  case $1 in
    --)
      shift
      suite+=("$@")
      break
      ;;
    --help | -h)
      say "usage: ./quickstart.sh [options] [-- options of dsa-bench]

Sets up what is missing (Debian packages, .venv, the text), builds build/release, runs the quick suite
(build/release/bin/dsa-bench --config presets/quick.toml) and makes its report.

$setup_options_help"
      exit
      ;;
    *) fail "quickstart.sh: unknown option $1; ./quickstart.sh --help lists the options (those of dsa-bench go after --)." ;;
  esac
  shift
done

scripts/setup.sh "${setup_options[@]}"
build_programs "$root" dsa-bench dsa-report

# Where the run's folder will be: --resume names it, --out (or the default) holds it.
place=results
for ((i = 0; i < ${#suite[@]}; ++i)); do
  case ${suite[i]} in
    --out | --resume) place=${suite[i + 1]-} ;;
    --out=* | --resume=*) place=${suite[i]#*=} ;;
  esac
done

started=$(mktemp)
trap 'rm -f "$started"' EXIT
status=0
build/release/bin/dsa-bench "${suite[@]}" || status=$?
record=$(find "$place" -maxdepth 2 -name record.json -newer "$started" 2>/dev/null | sort | tail -n 1)
# Without a record there is nothing to report (a wrong option, --help); dsa-bench has said why.
if [[ -z $record ]] || ((status == 130)); then exit "$status"; fi
build/release/bin/dsa-report make "$(dirname "$record")" >/dev/null
say "$(dirname "$(realpath "$record")")/report.html"
exit "$status"
