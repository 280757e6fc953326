// A folder of its own for one test, gone afterwards.
#pragma once
#include <filesystem>
#include <fstream>
#include <stdlib.h>
#include <string>
#include <string_view>
#include <vector>

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "dsa-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string path(const std::string& name) const { return (path_ / name).string(); }

  std::string write(const std::string& name, std::string_view bytes) const {
    std::ofstream(path(name), std::ios::binary)
        .write(bytes.data(), static_cast<long>(bytes.size()));
    return path(name);
  }

  template <class T>
  std::string write(const std::string& name, const std::vector<T>& values) const {
    return write(name, std::string_view(reinterpret_cast<const char*>(values.data()),
                                        values.size() * sizeof(T)));
  }

 private:
  std::filesystem::path path_;
};
