// Writes a document into a folder: charts/ with pictures, <stem>.md and <stem>.html.
#pragma once
#include "reports/document.h"

#include <filesystem>
#include <string>

namespace dsa::report {

struct PictureOptions {
  std::string python;  ///< with vl-convert; empty = the project's .venv, else python3
  bool no_pictures = false;
};

/// @param charts first letters of this document's chart ids: earlier charts of that name that it no
/// longer has are removed; empty = all.
/// @returns why there are no pictures, or nothing. @throws Error.
std::string publish(const Document& document, const std::filesystem::path& folder,
                    const std::string& charts, const PictureOptions& options);

}  // namespace dsa::report
