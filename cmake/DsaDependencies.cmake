# Finds every dependency first and lists all that is missing, each with its fix, in one message.
# Third-party code is never copied in.
set(dsa_missing "")
macro(dsa_need condition what fix)
  if(NOT (${condition}))
    string(APPEND dsa_missing "\n  - ${what}: ${fix}")
  endif()
endmacro()

find_package(Threads REQUIRED)
find_package(OpenMP COMPONENTS CXX QUIET)
dsa_need(OpenMP_CXX_FOUND "OpenMP" "use g++, or install libomp-dev for clang")
find_package(nlohmann_json 3.11 QUIET)
dsa_need(nlohmann_json_FOUND "nlohmann-json 3.11" "apt install nlohmann-json3-dev")
find_package(CLI11 2.1 QUIET)
dsa_need(CLI11_FOUND "CLI11 2.1" "apt install libcli11-dev")
find_package(benchmark 1.7 QUIET)
dsa_need(benchmark_FOUND "Google Benchmark 1.7 to 1.9" "apt install libbenchmark-dev")
if(DSA_TESTS)
  # A macro, not a function: Catch2's package file sets variables its own scripts read later.
  find_package(Catch2 3 QUIET)
  dsa_need(Catch2_FOUND "Catch2 v3" "apt install catch2 (Debian 12: libcatch2-dev of the backports suite), or -DDSA_TESTS=OFF")
endif()

file(GLOB dsa_venv_packages ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages)
find_path(DSA_NVTX_INCLUDE nvtx3/nvToolsExt.h
  HINTS ${dsa_venv_packages}
  PATHS /usr/local/cuda/include
  PATH_SUFFIXES nvidia/cu13/include nvidia/nvtx/include)
dsa_need(DSA_NVTX_INCLUDE "NVTX 3 headers" "python3 -m venv .venv && .venv/bin/pip install nvidia-nvtx==13.0.85, or -DDSA_NVTX_INCLUDE=<CUDA toolkit>/include")

include(DsaTorch)

if(dsa_missing)
  message(FATAL_ERROR "dsa-bench cannot be configured yet, these are missing:${dsa_missing}\n"
    "./quickstart.sh installs all of them.")
endif()
