# Flags shared by every target of ours, and the one-line helper that makes a folder a library.

find_program(DSA_CCACHE ccache)
if(DSA_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${DSA_CCACHE})
endif()

add_library(dsa_flags INTERFACE)
target_include_directories(dsa_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(dsa_flags INTERFACE -Wall -Wextra)
if(DSA_STRICT_WARNINGS)
  target_compile_options(dsa_flags INTERFACE -Wpedantic -Wshadow -Wconversion -Werror)
endif()
if(DSA_SANITIZE)
  target_compile_options(dsa_flags INTERFACE -fsanitize=${DSA_SANITIZE} -fno-omit-frame-pointer)
  target_link_options(dsa_flags INTERFACE -fsanitize=${DSA_SANITIZE})
endif()

# dsa_library(NAME): a static library of every .cpp in the current folder (not its subfolders).
function(dsa_library name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC dsa_flags)
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
endfunction()
