#!/usr/bin/env bash
# The only script that installs: Debian packages, the wheels of .venv, the text. Says each download's
# size before it starts, and does nothing twice. Called by quickstart.sh and test.sh.
# usage: scripts/setup.sh [--tests] [--no-install] [--torch-dir DIR] [--torch-index URL] [--python PATH]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$(dirname "${BASH_SOURCE[0]}")/apt_source.sh"
cd "$root"

# command that shows it is there, or "-" (then dpkg is asked); package
packages="g++ g++
cmake cmake
ninja ninja-build
git git
- libbenchmark-dev
- libcli11-dev
- nlohmann-json3-dev
- ca-certificates"

stamps=.venv/.dsa-setup
apt_log=.cache/apt.log
with_tests=""
no_install=""
torch_index=""
python=""

parse() {
  while (($#)); do
    case $1 in
      --tests) with_tests=1 ;;
      --no-install) no_install=1 ;;
      --torch-dir) torch_dir=$2 && shift ;;
      --torch-index) torch_index=$2 && shift ;;
      --python) python=$2 && shift ;;
      *) fail "scripts/setup.sh: unknown option $1; call ./quickstart.sh --help or ./test.sh --help." ;;
    esac
    shift
  done
}

# --- Debian packages ---------------------------------------------------------------------------

installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# Catch2 v3 is `catch2` everywhere but on Debian 12, whose own catch2 is version 2.
catch2_package() {
  (. /etc/os-release && [[ $ID == debian && $VERSION_ID == 12 ]]) && echo libcatch2-dev || echo catch2
}

# A python that can make a virtual environment, or nothing.
find_python() {
  local candidate
  for candidate in "$python" python3 /usr/bin/python3; do
    [[ -n $candidate ]] || continue
    if [[ $("$candidate" -c 'import sys, venv, ensurepip; print(sys.version_info >= (3, 10))' 2>/dev/null) == True ]]; then
      echo "$candidate"
      return
    fi
    [[ -z $python ]] || fail "--python $python cannot make a virtual environment; it must be Python 3.10 or newer with the modules venv and ensurepip."
  done
}

venv_works() { [[ -x $venv_python ]] && "$venv_python" -m pip --version >/dev/null 2>&1; }

missing_packages() {
  local command package
  while read -r command package; do
    if [[ $command != - ]] && command -v "$command" >/dev/null; then continue; fi
    installed "$package" || echo "$package"
  done <<<"$packages"
  if ! venv_works && [[ -z $(find_python) ]]; then echo python3-venv; fi
  [[ -n $with_tests ]] || return 0
  installed "$(catch2_package)" || catch2_package
  installed libbenchmark-tools || echo libbenchmark-tools
  if ! has_browser && apt_has_browser; then echo chromium; fi
}

# The names that tests/report_page_test.py looks for.
has_browser() { command -v chromium chromium-browser google-chrome >/dev/null; }
# Ubuntu's chromium package is a door to a snap, which no container can open.
apt_has_browser() { grep -q '^ID=debian' /etc/os-release; }

note_browser() {
  [[ -z $with_tests ]] || has_browser || apt_has_browser ||
    say "Note: the test report_page will be skipped: it needs a browser, and apt has none here but a snap. Put a chromium or google-chrome into PATH."
}

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "These Debian packages are missing and installing them needs root or sudo: ${wanted[*]}"
  fi
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" </dev/null; }

# apt_logged ARGUMENT...: dpkg's thousand lines go to a file, shown only when it fails.
apt_logged() {
  mkdir -p "$(dirname "$apt_log")"
  apt "$@" >>"$apt_log" 2>&1 || {
    tail -n 20 "$apt_log" >&2
    return 1
  }
}

enable_backports() {
  local suite entry file=/etc/apt/sources.list.d/dsa-backports
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  if apt-cache policy | grep -q "n=$suite-backports"; then return; fi
  entry=$(copy_source_entry "$suite" "$suite-backports" /etc/apt/sources.list.d/*.sources)
  file+=.sources
  if [[ -z $entry ]]; then
    entry=$(copy_source_line "$suite" "$suite-backports" /etc/apt/sources.list /etc/apt/sources.list.d/*.list)
    file=${file%.sources}.list
  fi
  [[ -n $entry ]] || fail "Catch2 v3 comes from the suite $suite-backports, and no source entry for $suite was found to copy; add that suite to apt's sources."
  say "Enabling $suite-backports (for Catch2 v3) in $file, a copy of this machine's own source entry."
  printf '%s\n' "$entry" | as_root tee "$file" >/dev/null
  backports_file=$file
}

install_packages() {
  local options=()
  mapfile -t wanted < <(missing_packages)
  ((${#wanted[@]})) || return 0
  command -v apt-get >/dev/null || fail "These packages are missing and this is no Debian or Ubuntu, so install them by hand: ${wanted[*]}"
  backports_file=""
  if [[ " ${wanted[*]} " == *" libcatch2-dev "* ]]; then
    enable_backports
    options=(-t "$(. /etc/os-release && echo "$VERSION_CODENAME")-backports")
  fi
  if ! apt_logged update; then
    [[ -z $backports_file ]] || as_root rm -f "$backports_file"
    fail "apt-get update failed (see above), so nothing was installed; mend apt's sources and try again."
  fi
  # Only Catch2 may come from backports: the rest stays with the release.
  if ((${#options[@]})); then
    install_from_apt libcatch2-dev "${options[@]}"
    mapfile -t wanted < <(missing_packages)
    ((${#wanted[@]})) || return 0
  fi
  install_from_apt "${wanted[@]}"
}

install_from_apt() {
  local bytes
  bytes=$(apt install --print-uris -qq --no-install-recommends "$@" | awk '{sum += $3} END {printf "%d", sum}')
  say "Debian packages: $(megabytes "$bytes") to download for: $* (log: $apt_log)"
  apt_logged install --no-install-recommends "$@" || fail "apt-get could not install $* (see above)."
}

megabytes() { awk -v bytes="$1" 'BEGIN {printf (bytes >= 1e9 ? "%.2f GB" : "%.1f MB"), bytes / (bytes >= 1e9 ? 1e9 : 1e6)}'; }

# --- Python wheels -----------------------------------------------------------------------------

pip() {
  local quiet=(-qq)
  [[ ! -t 1 ]] || quiet=()  # a person at a terminal sees pip's progress bars
  # No Python of torch's runs here, so a wheel from a folder comes alone (--no-deps); pip would complain each time.
  "$venv_python" -m pip "$1" "${quiet[@]}" --no-warn-conflicts "${@:2}"
}

make_venv() {
  local maker pin
  if ! venv_works; then
    maker=$(find_python)
    say "Making .venv with $("$maker" --version) ($(command -v "$maker"))"
    "$maker" -m venv .venv
  fi
  # First of all: Debian 12's pip 23.0 would download whole wheels only to learn what they need.
  pin=$(grep '^pip==' scripts/requirements.txt)
  [[ $(stamp_of pip) != "$pin" ]] || return 0
  pip install --upgrade "$pin" ||
    fail "pip could not fetch its own update (see above); is a package index reachable from here?"
  mkdir -p $stamps
  say "$pin" >$stamps/pip
}

# install_wheels STAMP SIGNATURE PIP-ARGUMENT...: once per signature; after an interrupted run all again.
install_wheels() {
  local stamp=$stamps/$1 signature=$2 again=()
  shift 2
  mkdir -p "$stamps"
  [[ ! -f $stamp.begun ]] || again=(--force-reinstall)
  "$venv_python" scripts/download_size.py "${again[@]}" "$@" ||
    fail "pip cannot find the wheels of scripts/requirements*.txt (see above)."
  touch "$stamp.begun"
  pip install "${again[@]}" "$@" || fail "pip could not install the wheels (see above)."
  rm -f "$stamp.begun"
  printf '%s\n' "$signature" >"$stamp"
}

stamp_of() { cat "$stamps/$1" 2>/dev/null || true; }

install_torch() {
  local torch from=(--index-url "$torch_index")
  torch=$(grep '^torch==' scripts/requirements.txt)
  if [[ -z $torch_index ]]; then
    # Whichever build of this version is there stays, also one that --torch-index brought.
    [[ $(stamp_of torch) == "$torch "* ]] || install_wheels torch "$torch default" "$torch"
  elif [[ $(stamp_of torch) != "$torch $torch_index" ]]; then
    [[ ! -d $torch_index ]] || from=(--no-index --find-links "$torch_index" --no-deps)
    install_wheels torch "$torch $torch_index" --force-reinstall "${from[@]}" "$torch"
  fi
}

install_python() {
  make_venv
  [[ -n $torch_dir ]] || install_torch
  local list signature
  for list in requirements ${with_tests:+requirements-test}; do
    signature=$(sha256sum <"scripts/$list.txt")
    [[ $(stamp_of "$list") != "$signature" ]] || continue
    mkdir -p $stamps
    grep -v '^torch==' "scripts/$list.txt" >"$stamps/$list.txt"
    install_wheels "$list" "$signature" -r "$stamps/$list.txt"
  done
}

# --- --no-install: look, list, change nothing --------------------------------------------------

venv_fix="python3 -m venv .venv && .venv/bin/pip install"

# importable MODULE...: in the Python that the reports and their tests use
importable() {
  local python=$venv_python
  [[ -x $python ]] || python=python3
  "$python" -c "import $(IFS=, && echo "$*")" 2>/dev/null
}

# What the build needs, without CMake to ask: it is missing itself, or its compiler is.
missing_for_build() {
  local package
  for package in libbenchmark-dev libcli11-dev nlohmann-json3-dev; do
    installed "$package" || missing+=("$package: apt install $package, or another copy where CMake finds it")
  done
  [[ -z $with_tests ]] || installed "$(catch2_package)" ||
    missing+=("Catch2 v3: apt install catch2 (Debian 12: libcatch2-dev of the backports suite), or another copy where CMake finds it")
  [[ -n $torch_dir ]] || compgen -G '.venv/lib/python3*/site-packages/torch/lib/libtorch_cpu.so' >/dev/null ||
    missing+=("LibTorch: $venv_fix $(grep '^torch==' scripts/requirements.txt), or --torch-dir DIR")
  compgen -G '.venv/lib/python3*/site-packages/nvidia/*/include/nvtx3' >/dev/null || [[ -d /usr/local/cuda/include/nvtx3 ]] ||
    missing+=("NVTX 3 headers: $venv_fix $(grep '^nvidia-nvtx==' scripts/requirements.txt), or -DDSA_NVTX_INCLUDE=DIR")
}

# What only the tests need when they run.
missing_for_tests() {
  command -v git >/dev/null || missing+=("git: apt install git (records name the commit they come from)")
  importable altair jsonschema scipy vl_convert ||
    missing+=("altair, jsonschema, scipy, vl-convert: $venv_fix -r scripts/requirements-test.txt $(grep '^vl-convert' scripts/requirements.txt)")
  local package
  for package in chromium libbenchmark-tools; do
    if [[ $(missing_packages) == *$package* ]]; then missing+=("$package: apt install $package"); fi
  done
}

list_missing() {
  local missing=() command output
  for command in g++ cmake ninja; do
    command -v $command >/dev/null || missing+=("$command: apt install $(awk -v c=$command '$1 == c {print $2}' <<<"$packages")")
  done
  if ((${#missing[@]})); then
    missing_for_build
  # CMake knows the libraries and lists what it lacks; its list is taken over as it is.
  elif ! output=$(configure release "-DDSA_TESTS=$([[ -n $with_tests ]] && echo ON || echo OFF)" 2>&1); then
    mapfile -t missing < <(sed -n 's/^ *- \(.*: .*\)/\1/p' <<<"$output")
    ((${#missing[@]})) || fail "CMake cannot configure, for a reason of its own:"$'\n'"$output"
  fi
  scripts/fetch-text.sh --check ||
    missing+=("the text: $venv_fix -r scripts/requirements.txt && scripts/fetch-text.sh, or a text of your own: -- --data FILE")
  note_browser
  if [[ -n $with_tests ]]; then
    missing_for_tests
  elif ! importable vl_convert; then
    say "Note: the report will have no SVG and PNG pictures: $venv_fix $(grep '^vl-convert' scripts/requirements.txt)"
  fi
  if [[ ${missing[*]} == *"$venv_fix"* ]] && ! venv_works && [[ -z $(find_python) ]]; then
    missing=("Python with venv, for the fixes below: apt install python3-venv" "${missing[@]}")
  fi
  ((${#missing[@]})) || return 0
  printf '%s\n' "Missing (without --no-install, all of it would be installed):" "${missing[@]/#/  - }" >&2
  exit 1
}

# -----------------------------------------------------------------------------------------------

trap 'say "Interrupted; the next call goes on where this one stopped." >&2; exit 130' INT TERM
parse "$@"
[[ -z $python ]] || find_python >/dev/null  # refused before anything is installed
if [[ -n $no_install ]]; then
  list_missing
  exit
fi
exec 9<"$root"
flock 9  # two terminals may run quickstart.sh and test.sh at once
install_packages
install_python
scripts/fetch-text.sh
note_browser
