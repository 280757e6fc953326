// What this build was made from. Arrays of a fixed size, filled in a file of their own (cmake/DsaBuildFacts.cmake):
// neither the length nor the letters of a path or of a commit then reach the machine code, which
// `dsa-bench gate` compares.
#pragma once
#include <cstddef>

namespace dsa {

inline constexpr std::size_t kFactSize = 128, kPathSize = 4096;

extern const char kGitHash[kFactSize];
extern const char kGitDirty[kFactSize];  ///< "true", "false", or empty: no git
extern const char kCompiler[kFactSize];
extern const char kCompilerFlags[kPathSize];
extern const char kBuildType[kFactSize];
extern const char kSourceFolder[kPathSize];  ///< of the checkout

}  // namespace dsa
