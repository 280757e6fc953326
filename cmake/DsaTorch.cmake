# Imports LibTorch from -DTorch_DIR=<torch>/share/cmake/Torch or from the project's .venv, as one
# target `dsa_torch`. Leaner than torch's own package file, which fails on a CUDA wheel beside a
# toolkit without cuBLAS headers.
if(Torch_DIR)
  get_filename_component(torch_root "${Torch_DIR}/../../.." ABSOLUTE)
else()
  file(GLOB torch_root ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
endif()
set(DSA_TORCH_LIB "${torch_root}/lib")
set(torch_version_file "${torch_root}/share/cmake/Torch/TorchConfigVersion.cmake")
if(torch_root AND EXISTS "${torch_version_file}")
  file(STRINGS "${torch_version_file}" torch_version_line REGEX "set\\(PACKAGE_VERSION ")
  string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" DSA_TORCH_VERSION "${torch_version_line}")
endif()
dsa_need(DSA_TORCH_VERSION "LibTorch 2.11 to 2.14"
  "python3 -m venv .venv && .venv/bin/pip install torch==2.13.0, or -DTorch_DIR=<libtorch>/share/cmake/Torch")
if(DSA_TORCH_VERSION)
  message(STATUS "LibTorch ${DSA_TORCH_VERSION} from ${torch_root}")
  # OpenMP here, not as an afterthought: at::parallel_for is silently serial without -fopenmp.
  add_library(dsa_torch INTERFACE)
  target_include_directories(dsa_torch SYSTEM INTERFACE
    ${torch_root}/include ${torch_root}/include/torch/csrc/api/include)
  target_link_directories(dsa_torch INTERFACE ${DSA_TORCH_LIB})
  # By flag, not by OpenMP::OpenMP_CXX: that names the compiler's libgomp by path, while the one to
  # run with is the copy the wheel brings (CMake warns of two folders that hide each other).
  separate_arguments(dsa_openmp_flags UNIX_COMMAND "${OpenMP_CXX_FLAGS}")
  target_compile_options(dsa_torch INTERFACE ${dsa_openmp_flags})
  target_link_options(dsa_torch INTERFACE ${dsa_openmp_flags})
  # libstdc++ first: some builds of torch (2.11 for CUDA 13) export parts of an older std::filesystem, and its
  # remove_all crashes in a program that was compiled with newer headers.
  target_link_libraries(dsa_torch INTERFACE
    -Wl,--no-as-needed stdc++ torch torch_cpu c10 -Wl,--as-needed Threads::Threads)
  list(APPEND CMAKE_BUILD_RPATH ${DSA_TORCH_LIB})
  list(APPEND CMAKE_INSTALL_RPATH ${DSA_TORCH_LIB})
endif()
