#!/usr/bin/env bash
# The scripts a stranger runs, as far as they can be tested without installing anything.
# usage: tests/setup_test.sh    (from anywhere; ctest calls it)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
failures=0
check() {  # check PROPERTY COMMAND...
  if ! "${@:2}" >/dev/null 2>&1; then
    echo "FAILED: $1 (${*:2})"
    failures=$((failures + 1))
  fi
}

# refuses COMMAND... : exit code 1, nothing on stdout, one line on stderr that names the last argument
refuses() {
  local out error code
  error=$(mktemp)
  out=$("$@" 2>"$error" </dev/null)
  code=$?
  [[ $code == 1 && -z $out && $(wc -l <"$error") == 1 ]] && grep -qF -- "${*: -1}" "$error"
  code=$?
  rm -f "$error"
  return $code
}

helps() { [[ $("$@") == 'usage: '* ]]; }

for script in quickstart.sh test.sh .ci/run scripts/*.sh tests/*.sh; do
  check "$script is valid bash" bash -n "$script"
  check "$script can be executed, or is only sourced" test -x "$script" -o -n "$(head -1 "$script" | grep '^# Sourced')"
  check "$script stops at the first error" grep -qE '^set -[e]?uo pipefail|^# Sourced by' "$script"
done

for script in ./quickstart.sh ./test.sh; do
  check "an unknown option is refused in one sentence" refuses $script --no-such-option
  check "--help says how to call it" helps $script --help
  check "a folder without LibTorch is refused" refuses $script --torch-dir /nonexistent-torch
  check "something that is no Python is refused" refuses $script --no-install --python /bin/true
  check "an option without its value is refused" refuses $script --torch-index
done
check "ci-gate.sh refuses an unknown commit before it builds" refuses scripts/ci-gate.sh --base-commit no-such-commit
check "ci-gate.sh refuses an option without its value" refuses scripts/ci-gate.sh --base-commit
check "fetch-text.sh refuses an unknown option" refuses scripts/fetch-text.sh --no-such-option

# A download is the same everywhere only when every requirement names one version.
unpinned() { grep -hvE '^(#|$)|^[a-z0-9-]+==[0-9][0-9a-z.]*$' scripts/requirements*.txt; }
check "every Python requirement is pinned" test -z "$(unpinned)"
# The fix that CMake prints and the wheel that set-up installs are one version.
for wheel in torch nvidia-nvtx; do
  check "CMake's hint names the $wheel of requirements.txt" grep -qF "install $(grep "^$wheel==" scripts/requirements.txt)," cmake/Dsa{Torch,Dependencies}.cmake
done

# Mirrors differ from machine to machine, so no script may name one.
hosts() { grep -nE 'https?://|[a-z0-9-]+\.(debian|ubuntu|python|pytorch|pypi)\.(org|com)' quickstart.sh test.sh .ci/run scripts/*; }
check "no script names a host" test -z "$(hosts)"

# Sourced in a shell of its own, setup.sh's copy of a source entry is tried on both forms apt knows.
copies() {
  local folder=$(mktemp -d)
  printf 'Types: deb\n# a comment\nURIs: mirror:/x\nSuites: one-security\n\nTypes: deb deb-src\nURIs: mirror:/y\nSuites: one one-updates\nComponents: main\n' >"$folder/a.sources"
  printf '# deb mirror:/z one main\ndeb [arch=amd64] mirror:/y one main contrib\n' >"$folder/a.list"
  (source scripts/apt_source.sh
    [[ $(copy_source_entry one two "$folder"/*.sources) == $'Types: deb deb-src\nURIs: mirror:/y\nSuites: two\nComponents: main' ]] &&
      [[ $(copy_source_line one two "$folder"/*.list) == 'deb [arch=amd64] mirror:/y two main contrib' ]])
  local code=$?
  rm -rf "$folder"
  return $code
}
check "a source entry is copied with only its suite changed" copies

# A clone with neither compiler nor .venv: one list of all that is missing, each with its fix, and nothing changed.
lists_missing() {  # lists_missing SCRIPT WHAT...
  local script=$1 folder=$(mktemp -d) said code tool what
  shift
  mkdir "$folder/bin"
  for tool in bash env dirname cat sed awk grep sha256sum cut dpkg-query; do ln -s "$(command -v $tool)" "$folder/bin/"; done
  cp -r scripts quickstart.sh test.sh "$folder"
  find "$folder" >"$folder.before"
  said=$(PATH=$folder/bin "$folder/$script" --no-install 2>&1 </dev/null)
  code=$?
  for what in g++ cmake ninja LibTorch "the text" "$@"; do
    grep -q "^  - $what: .*\(apt\|pip\) install " <<<"$said" || code="$what is not listed"
  done
  [[ $code == 1 ]] && find "$folder" | cmp - "$folder.before"
  code=$?
  rm -rf "$folder" "$folder.before"
  return $code
}
check "--no-install lists what a build lacks" lists_missing quickstart.sh
check "--no-install lists what the tests lack too" lists_missing test.sh "altair, jsonschema, scipy, vl-convert"

((failures == 0)) && echo "setup: all checks passed"
exit $((failures > 0))
