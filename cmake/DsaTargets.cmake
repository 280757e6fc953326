# Flags shared by every target of ours, and the one-line helper that makes a folder a library.

find_program(DSA_CCACHE ccache)
if(DSA_CCACHE)
  # Without these ccache passes over every file that uses a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros ${DSA_CCACHE})
endif()

add_library(dsa_flags INTERFACE)
target_include_directories(dsa_flags INTERFACE ${CMAKE_SOURCE_DIR})
# __FILE__ (torch's checks name it, its headers are in .venv) without the checkout's path: the same commit gives the
# same machine code in any folder, which `dsa-bench gate` relies on.
target_compile_options(dsa_flags INTERFACE -fmacro-prefix-map=${CMAKE_SOURCE_DIR}=.)
# g++ 12 to 14 take the JSON library's, torch's and vector<bool>'s own code for out of bounds; ASan reads it right.
target_compile_options(dsa_flags INTERFACE -Wall -Wextra
  $<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-stringop-overflow>)
if(DSA_STRICT_WARNINGS)
  target_compile_options(dsa_flags INTERFACE -Wpedantic -Wshadow -Wconversion -Werror)
endif()
if(DSA_SANITIZE)
  target_compile_options(dsa_flags INTERFACE -fsanitize=${DSA_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(dsa_flags INTERFACE -fsanitize=${DSA_SANITIZE})
endif()

# For code that waits for kernels, for torch or for a disk: -O1 takes a third off its compile time,
# which is spent on templates of JSON and of the command line.
add_library(dsa_waiting_code INTERFACE)
target_compile_options(dsa_waiting_code INTERFACE $<$<CONFIG:Release>:-O1>)
# g++ 13 and later refuse a precompiled header of -O3 unless these, which -O2 switches on, agree.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 13
    AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  target_compile_options(dsa_waiting_code INTERFACE
    $<$<CONFIG:Release>:-munroll-only-small-loops;-mvzeroupper>)
endif()

# Headers, not code, are most of a file's compile time: with files joined into units of eight, a build of everything
# takes half as long. -DDSA_UNITY=OFF compiles each file alone, for work on one file. With -DDSA_PCH=OFF too the
# build checks that each includes what it uses. Never in attention/cpu, where one file is one instruction set.
option(DSA_UNITY "Compile files in groups" ON)
# dsa_unity(TARGET [ALONE FILE...]): the files named ALONE are compiled alone all the same.
function(dsa_unity target)
  cmake_parse_arguments(PARSE_ARGV 1 group "" "" ALONE)
  set_source_files_properties(${group_ALONE} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${DSA_UNITY} UNITY_BUILD_BATCH_SIZE 8)
endfunction()

# dsa_library(NAME): a static library of every .cpp in the current folder (not its subfolders).
function(dsa_library name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC dsa_flags)
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
endfunction()

# LibTorch's headers cost 10 to 25 s a file; parsed once, they cost 1 s. dsa_attention makes them,
# the libraries above it read the same file.
option(DSA_PCH "Precompile LibTorch's headers" ON)
function(dsa_precompile_torch target)
  if(NOT DSA_PCH)
    return()
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -fpch-preprocess)
  endif()
  if(ARGC GREATER 1)
    target_precompile_headers(${target} REUSE_FROM ${ARGV1})
  else()
    target_precompile_headers(${target} PRIVATE <torch/nn/module.h>
      <torch/csrc/autograd/custom_function.h> <ATen/Functions.h> <ATen/TensorOperators.h>
      <ATen/Parallel.h> <ATen/CPUGeneratorImpl.h>)
  endif()
endfunction()
