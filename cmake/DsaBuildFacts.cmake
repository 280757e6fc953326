# Run with -P at every build: writes OUT, the source of what this build was made from (harness/build_facts.h). The
# file is touched only when a fact changed, so an unchanged tree compiles nothing.
# Takes -D: SOURCE, OUT, GIT, COMPILER, FLAGS, BUILD_TYPE.
set(git_hash "")
set(git_dirty "")
if(GIT)
  execute_process(COMMAND ${GIT} rev-parse HEAD WORKING_DIRECTORY ${SOURCE}
    OUTPUT_VARIABLE git_hash OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(failed)
    set(git_hash "")
  else()
    execute_process(COMMAND ${GIT} status --porcelain --untracked-files=no
      WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE changes ERROR_QUIET)
    if(changes)
      set(git_dirty "true")
    else()
      set(git_dirty "false")
    endif()
  endif()
endif()
string(STRIP "${FLAGS}" FLAGS)
string(REPLACE "\"" "\\\"" FLAGS "${FLAGS}")
file(WRITE ${OUT}.new
"// Written by cmake/DsaBuildFacts.cmake at build time.
#include \"harness/build_facts.h\"
namespace dsa {
const char kGitHash[kFactSize] = \"${git_hash}\";
const char kGitDirty[kFactSize] = \"${git_dirty}\";
const char kCompiler[kFactSize] = \"${COMPILER}\";
const char kCompilerFlags[kPathSize] = \"${FLAGS}\";
const char kBuildType[kFactSize] = \"${BUILD_TYPE}\";
const char kSourceFolder[kPathSize] = \"${SOURCE}\";
}  // namespace dsa
")
execute_process(COMMAND ${CMAKE_COMMAND} -E copy_if_different ${OUT}.new ${OUT})
