#!/usr/bin/env bash
# Sets up what is missing, builds, and runs all tests. See --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/common.sh"
cd "$root"

preset=release
labels=(--label-exclude '^(slow|nightly)$')
while (($#)); do
  take_setup_option "$@"
  if ((taken)); then
    shift "$taken"
    continue
  fi
  case $1 in
    --asan) preset=asan ;;
    --slow) labels=() ;;
    --help | -h)
      say "usage: ./test.sh [options]    sets up what is missing, builds and runs the tests

  --asan             with AddressSanitizer and UBSan (build/asan)
  --slow             the slow and the nightly tests too
$setup_options_help"
      exit
      ;;
    *) fail "test.sh: unknown option $1; ./test.sh --help lists the options." ;;
  esac
  shift
done

scripts/setup.sh --tests "${setup_options[@]}"
configure "$preset" -DDSA_TESTS=ON
build "$preset" all
# Side by side: most tests are short and start-up (loading LibTorch) is what they wait for.
exec ctest --preset "$preset" "${labels[@]}" --parallel "$(nproc)"
