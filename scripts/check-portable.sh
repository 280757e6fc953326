#!/usr/bin/env bash
# Compiles the CPU kernels and the operations with clang and for aarch64, objects only.
# usage: scripts/check-portable.sh [TORCH_INCLUDE_DIR]    exit 77: a compiler is missing
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

torch=${1:-$(.venv/bin/python -c 'import torch, os; print(os.path.dirname(torch.__file__))')/include}
nvtx=$(find "$root/.venv" -path '*include/nvtx3' -type d 2>/dev/null | head -1)
clang=$(compgen -c clang++- | grep -E '^clang\+\+-[0-9]+$' | sort -t- -k2 -n | tail -1 || true)
arm=aarch64-linux-gnu-g++
if [ -z "$clang" ] || [ "${clang##*-}" -lt 16 ] || ! command -v "$arm" >/dev/null; then
  say "check-portable: needs clang++ 16 or later and $arm; apt install clang-16 g++-aarch64-linux-gnu"
  exit 77
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

avx512="-mavx512f -mavx512bw -mavx512dq -mavx512vl -mbmi2 -mfma"
compile() {  # compiler, file, flags...
  local compiler=$1 file=$2
  shift 2
  "$compiler" -std=c++20 -O2 -Wall -Wextra -Werror -I. -isystem "$torch" \
    -isystem "$torch/torch/csrc/api/include" ${nvtx:+-isystem "${nvtx%/*}"} "$@" -c "$file" \
    -o "$out/object.o" || fail "check-portable: $compiler does not compile $file."
}
checked=0
for file in attention/cpu/*.cpp attention/backend_cpu*.cpp; do
  case $file in
    */isa_other.cpp) flags="" ;;
    *_avx2.cpp) flags="-mavx2 -mfma -mbmi2" ;;
    *_avx512bf16.cpp) flags="$avx512 -mavx512bf16" ;;
    *_amx.cpp) flags="$avx512 -mavx512bf16 -mamx-tile -mamx-bf16 -mamx-int8" ;;
    *_avx512.cpp) flags="$avx512" ;;
    *) flags="" ;;
  esac
  # shellcheck disable=SC2086  # flags are words
  case $file in
    */isa_other.cpp) compile "$arm" "$file" ;;
    *_avx*.cpp | *_amx.cpp | */isa_x86.cpp) compile "$clang" "$file" $flags ;;
    *) compile "$clang" "$file" && compile "$arm" "$file" ;;
  esac
  checked=$((checked + 1))
done
say "check-portable: $checked sources compile with $clang and $arm"
