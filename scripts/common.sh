# Sourced by quickstart.sh, test.sh and scripts/*.sh: messages, the options all of them take, the
# one way to configure and build. Installs nothing (scripts/setup.sh does).
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv_python=$root/.venv/bin/python

say() { printf '%s\n' "$*"; }
fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

setup_options_help="  --no-install       install nothing; list every missing piece with its fix, and stop
  --torch-dir DIR    use the LibTorch in DIR (its root, or its share/cmake/Torch) instead of a wheel;
                     -DTorch_DIR=DIR means the same
  --torch-index URL  take the torch wheel from this package index (or folder), e.g. the CPU-only one
  --python PATH      the Python that makes .venv (3.10 or newer, with venv)
  -DNAME=VALUE       passed on to CMake
  --help             this text"

setup_options=()  # handed to scripts/setup.sh
cmake_options=()  # handed to CMake
torch_dir=""

# Takes one option that every entry script understands; `taken` says how many words it used (0: not one of them).
take_setup_option() {
  taken=1
  case $1 in
    --no-install) setup_options+=("$1") ;;
    -DTorch_DIR=* | -DTorch_DIR:PATH=*) use_torch_dir "${1#*=}" ;;
    -D?*=*) cmake_options+=("$1") ;;
    --torch-dir | --torch-index | --python)
      [[ $# -ge 2 && -n $2 ]] || fail "$1 needs a value after it; see --help."
      taken=2
      if [[ $1 == --torch-dir ]]; then use_torch_dir "$2"; else setup_options+=("$1" "$2"); fi
      ;;
    *) taken=0 ;;
  esac
}

use_torch_dir() {
  local folder
  for folder in "$1/share/cmake/Torch" "$1"; do
    if [[ -f $folder/TorchConfigVersion.cmake ]]; then
      torch_dir=$(cd "$folder" && pwd)
      setup_options+=(--torch-dir "$torch_dir")
      return
    fi
  done
  fail "--torch-dir $1 holds no share/cmake/Torch/TorchConfigVersion.cmake; give the root of a LibTorch (the folder with include/ and lib/)."
}

# Jobs that fit: a file that includes torch takes up to 1.3 GB of memory to compile.
build_jobs() {
  local cores available jobs
  cores=$(nproc)
  available=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)
  jobs=$((available / 1400000))
  ((jobs < cores)) || jobs=$cores
  ((jobs > 1)) || jobs=1
  echo "$jobs"
}

# configure PRESET [-D...]: only warnings and errors are shown. Torch_DIR is always given, so that a folder named
# once is not remembered for ever.
configure() {
  local preset=$1
  shift
  cmake --preset "$preset" "-DTorch_DIR=$torch_dir" "$@" "${cmake_options[@]}" >/dev/null
}

# build_programs FOLDER TARGET...: those of the checkout in FOLDER, without its tests, which need more packages.
# They stay where ./test.sh switched them on: flipping would configure anew at every change of script.
build_programs() (
  cd "$1" || exit
  tests=OFF
  if grep -qs '^DSA_TESTS:BOOL=ON' build/release/CMakeCache.txt; then tests=ON; fi
  configure release "-DDSA_TESTS=$tests" && build release "${@:2}"
)

# build PRESET TARGET...
build() {
  local preset=$1
  shift
  cmake --build --preset "$preset" --parallel "$(build_jobs)" --target "$@"
}
