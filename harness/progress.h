// What a person sees while a run goes on: a live line with the time left on stderr (only on a
// terminal, only for what takes longer than two seconds) and finished rows on stdout.
#pragma once
#include <chrono>
#include <string>

namespace dsa {

class Progress {
 public:
  explicit Progress(bool quiet);
  ~Progress() { clear(); }
  void start(int64_t rows);                             ///< rows of the whole run
  void begin(const std::string& name);                  ///< the next row
  void tick(double fraction, const std::string& note);  ///< share of the row that is done
  void end();                                           ///< the row is done
  void print(const std::string& line);  ///< a line of the table, on stdout unless quiet

 private:
  void clear();
  using Clock = std::chrono::steady_clock;
  bool quiet_, live_, drawn_ = false;
  int64_t rows_ = 0, done_ = 0;
  std::string name_;
  Clock::time_point start_, drawn_at_;
};

std::string shown_seconds(double seconds);   ///< "53.9 ms"
std::string shown_duration(double seconds);  ///< "1:02:03" or "2:03"

}  // namespace dsa
