#include "harness/progress.h"

#include <cmath>
#include <cstdio>
#include <unistd.h>

namespace dsa {

Progress::Progress(bool quiet) : quiet_(quiet), live_(!quiet && isatty(STDERR_FILENO) != 0) {
  start_ = drawn_at_ = Clock::now();
}

void Progress::start(int64_t rows) {
  rows_ = rows;
  start_ = Clock::now();
}

void Progress::begin(const std::string& name) {
  name_ = name;
}

void Progress::tick(double fraction, const std::string& note) {
  if (!live_) return;
  const auto now = Clock::now();
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const bool fresh = std::chrono::duration<double>(now - drawn_at_).count() < 0.2;
  if (elapsed < 2 || (drawn_ && fresh)) return;
  clear();
  const double complete = static_cast<double>(done_) + fraction;
  std::string left;
  if (complete > 0 && rows_ > 0) {
    left = " · " + shown_duration(elapsed / complete * (static_cast<double>(rows_) - complete)) +
           " left";
  }
  std::fprintf(stderr, "\r[%lld/%lld] %s %.0f %% %s%s", static_cast<long long>(done_ + 1),
               static_cast<long long>(rows_), name_.c_str(), 100 * fraction, note.c_str(),
               left.c_str());
  std::fflush(stderr);
  drawn_ = true;
  drawn_at_ = now;
}

void Progress::end() {
  ++done_;
  clear();
}

void Progress::print(const std::string& line) {
  if (quiet_) return;
  clear();
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

void Progress::clear() {
  if (drawn_) std::fputs("\r\033[2K", stderr);
  drawn_ = false;
}

std::string shown_seconds(double seconds) {
  char text[32];
  if (!std::isfinite(seconds)) return "-";
  if (seconds < 1e-3)
    std::snprintf(text, sizeof text, "%.1f us", seconds * 1e6);
  else if (seconds < 1)
    std::snprintf(text, sizeof text, "%.2f ms", seconds * 1e3);
  else
    std::snprintf(text, sizeof text, "%.3f s", seconds);
  return text;
}

std::string shown_duration(double seconds) {
  const auto total = static_cast<long long>(std::lround(seconds));
  char text[32];
  if (total >= 3600) {
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", total / 3600, total / 60 % 60,
                  total % 60);
  } else {
    std::snprintf(text, sizeof text, "%lld:%02lld", total / 60, total % 60);
  }
  return text;
}

}  // namespace dsa
