// Denormal floats as zero, on every thread that computes.
#pragma once

namespace dsa {

/// While it lives (and `on`), denormal results and inputs count as zero, in this thread and in all of
/// torch's pool: at::set_flush_denormal alone changes only the calling thread, and half of the work
/// stays slow. Threads started later inherit it from their creator. Scopes may nest.
class FlushDenormals {
 public:
  explicit FlushDenormals(bool on);
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  bool on_;
};

}  // namespace dsa
