#include "harness/recorder.h"

#include "attention/fields.h"
#include "harness/run_files.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <limits>
#include <sstream>
#include <unistd.h>

namespace dsa {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

Json line_of(const Sample& s) {
  Json out = {{"type", "sample"},
              {"level", s.level},
              {"id", s.id},
              {"repetition", s.repetition},
              {"iterations", s.iterations},
              {"seconds", s.seconds},
              {"cpu_seconds", s.cpu_seconds}};
  // A 64-bit number as text: JSON readers that use doubles would change it.
  if (s.seed) out["seed"] = std::to_string(*s.seed);
  if (!s.label.empty()) out["label"] = s.label;
  out["values"] = s.values;
  return out;
}

double number(const Json& json) {
  return json.is_number() ? json.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

Sample sample_of(const Json& json) {
  Sample s;
  s.id = json.at("id").get<std::string>();
  s.level = json.at("level").get<std::string>();
  s.repetition = json.at("repetition").get<int64_t>();
  s.iterations = json.at("iterations").get<int64_t>();
  s.seconds = number(json.at("seconds"));
  s.cpu_seconds = number(json.at("cpu_seconds"));
  if (json.contains("seed")) s.seed = std::stoull(json["seed"].get<std::string>());
  s.label = json.value("label", "");
  for (const auto& [key, value] : json.at("values").items()) s.values[key] = number(value);
  return s;
}

}  // namespace

fs::path make_folder(const fs::path& out, std::string& id) {
  std::error_code error;
  fs::create_directories(out, error);
  require(!error && fs::is_directory(out), "--out ", out.string(),
          " cannot be used as a folder: ", error ? error.message() : "it is a file");
  const std::string first = id;
  for (int n = 2; !fs::create_directory(out / id, error); ++n) {
    require(!error, "--out ", out.string(), " cannot be written: ", error.message());
    id = first + "-" + std::to_string(n);
  }
  return out / id;
}

std::string whole_text(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  require(in.good(), "cannot read ", file.string(), ": ", std::strerror(errno));
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<std::string> whole_lines(const fs::path& file) {
  std::vector<std::string> lines;
  if (!fs::exists(file)) return lines;
  std::istringstream text(whole_text(file));
  for (std::string line; std::getline(text, line);) {
    if (!text.eof() && !line.empty()) lines.push_back(line);
  }
  return lines;
}

void write_atomically(const fs::path& file, const std::string& text) {
  const fs::path temporary = file.string() + ".tmp";
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  require(fd >= 0, "cannot write ", file.string(), ": ", std::strerror(errno));
  size_t done = 0;
  int failure = 0;
  while (failure == 0 && done < text.size()) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n > 0)
      done += static_cast<size_t>(n);
    else if (errno != EINTR)
      failure = errno;
  }
  if (failure == 0 && ::fsync(fd) != 0) failure = errno;
  ::close(fd);
  if (failure == 0 && std::rename(temporary.c_str(), file.c_str()) != 0) failure = errno;
  require(failure == 0, "cannot write ", file.string(), ": ", std::strerror(failure));
}

JsonLines::JsonLines(const fs::path& file) : path_(file) {
  bool cut_off = false;
  if (fs::exists(file) && fs::file_size(file) > 0) cut_off = whole_text(file).back() != '\n';
  file_.reset(std::fopen(file.c_str(), "ae"));
  require(file_ != nullptr, "cannot write ", file.string(), ": ", std::strerror(errno));
  if (cut_off) std::fputc('\n', file_.get());
}

void JsonLines::write(const std::string& line) {
  const std::string text = line + "\n";
  const bool written = std::fwrite(text.data(), 1, text.size(), file_.get()) == text.size() &&
                       std::fflush(file_.get()) == 0;
  require(written, "cannot write ", path_.string(), ": ", std::strerror(errno));
}

Recorder::Recorder(const fs::path& out, record::Run run, MachineContext context)
    : run_(std::move(run)), context_(std::move(context)) {
  folder_ = make_folder(out, run_.id);
  lines_ = std::make_unique<JsonLines>(folder_ / "samples.jsonl");
  lines_->write(Json{{"type", "run"}, {"id", run_.id}, {"started", run_.started}}.dump());
  write();
}

Recorder::Recorder(const fs::path& folder, MachineContext context)
    : folder_(folder), context_(std::move(context)) {
  run_ = record::from_json(whole_text(folder / "record.json"));
  if (fs::exists(folder / "failures.json")) {
    failures_ = record::failures_from_json(whole_text(folder / "failures.json"));
  }
  load_samples();
  lines_ = std::make_unique<JsonLines>(folder_ / "samples.jsonl");
  lines_->write(Json{{"type", "resumed"}, {"id", run_.id}, {"started", utc_now()}}.dump());
  // Repetitions of a row that was cut off belong to no result; the row is measured anew.
  std::set<std::string> unfinished;
  for (const Sample& sample : samples_) {
    const bool training = sample.level == "training";
    if (!metric(sample.id, training ? "step_time" : "time")) unfinished.insert(sample.id);
  }
  for (const auto& id : unfinished) retract(id);
  run_.status = "running";
  run_.error.clear();
  run_.ended.clear();
  write();
}

void Recorder::load_samples() {
  for (const std::string& line : whole_lines(folder_ / "samples.jsonl")) {
    const Json json = Json::parse(line, nullptr, false);
    if (json.is_discarded()) continue;  // the line a crash cut off, closed by a later resume
    const std::string type = json.value("type", "");
    if (type == "sample") samples_.push_back(sample_of(json));
    if (type == "retracted") {
      std::erase_if(samples_, [&](const Sample& s) { return s.id == json.value("id", ""); });
    }
  }
}

const record::Metric* Recorder::metric(const std::string& id, const std::string& quantity) const {
  for (const auto& metric : run_.metrics) {
    const auto found = metric.labels.find("id");
    if (metric.quantity.name == quantity && found != metric.labels.end() && found->second == id) {
      return &metric;
    }
  }
  return nullptr;
}

void Recorder::add(const Sample& sample) {
  for (const auto& [name, value] : sample.values) {
    if (reserved_counter(name)) throw std::logic_error("counter \"" + name + "\" is reserved");
  }
  lines_->write(line_of(sample).dump());
  samples_.push_back(sample);
}

void Recorder::retract(const std::string& id) {
  lines_->write(Json{{"type", "retracted"}, {"id", id}}.dump());
  std::erase_if(samples_, [&](const Sample& s) { return s.id == id; });
}

void Recorder::put(const record::Metric& metric) {
  for (auto& known : run_.metrics) {
    if (known.quantity.name == metric.quantity.name && known.labels == metric.labels) {
      known = metric;
      return;
    }
  }
  run_.metrics.push_back(metric);
}

void Recorder::put(const record::Series& series) {
  for (auto& known : run_.series) {
    if (known.x.name == series.x.name && known.y.name == series.y.name &&
        known.labels == series.labels) {
      known = series;
      return;
    }
  }
  run_.series.push_back(series);
}

void Recorder::put(const record::Failure& failure) {
  std::erase_if(failures_, [&](const record::Failure& known) {
    return known.id == failure.id && known.labels == failure.labels;
  });
  failures_.push_back(failure);
}

void Recorder::forget_failures(const std::string& id, const std::string& status) {
  std::erase_if(failures_, [&](const record::Failure& known) {
    return known.id == id && (status.empty() || known.status == status);
  });
}

void Recorder::write() {
  // record.json last: whoever sees it finds its companions at least as new.
  write_atomically(folder_ / "results.json", google_json(run_, context_, samples_, false));
  write_atomically(folder_ / "track.json", google_json(run_, context_, samples_, true));
  write_atomically(folder_ / "failures.json", record::to_json(failures_));
  write_atomically(folder_ / "summary.json", summary_json(run_));
  write_atomically(folder_ / "record.json", record::to_json(run_));
}

void Recorder::finish(const std::string& status, const std::string& error) {
  run_.status = status;
  run_.error = error;
  run_.ended = utc_now();
  write();
  lines_->write(Json{{"type", "end"}, {"status", status}}.dump());
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string stamp_of(std::string utc) {
  std::erase_if(utc, [](char c) { return c == '-' || c == ':' || c == 'Z'; });
  return utc;
}

double median(std::vector<double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(middle), values.end());
  const double upper = values[middle];
  if (values.size() % 2 == 1) return upper;
  return (upper +
          *std::max_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(middle))) /
         2;
}

}  // namespace dsa
