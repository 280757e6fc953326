#include "attention/nvtx.h"

#include <ATen/SequenceNumber.h>
#include <ATen/record_function.h>
#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

namespace dsa::nvtx {
namespace {

struct CategoryRow {
  Category category;
  const char* name;
  uint32_t colour;  ///< ARGB; those of attention, indexer and top-k are the report's
};

constexpr std::array<CategoryRow, 12> kCategories = {{
    {Category::kSetup, "setup", 0xFF9D9D9D},
    {Category::kWarmup, "warmup", 0xFFBAB0AC},
    {Category::kCorrectness, "correctness", 0xFF8C8C8C},
    {Category::kTimed, "timed", 0xFF5A5A5A},
    {Category::kIndexer, "indexer", 0xFFE4572E},
    {Category::kTopK, "topk", 0xFFF2A541},
    {Category::kAttention, "attention", 0xFF4C78A8},
    {Category::kMoe, "moe", 0xFF7F7F7F},
    {Category::kHead, "head", 0xFF6E6E6E},
    {Category::kOptimizer, "optimizer", 0xFFA6A6A6},
    {Category::kData, "data", 0xFFC7C7C7},
    {Category::kOther, "other", 0xFFD9D9D9},
}};

const CategoryRow& row(Category category) {
  return kCategories[static_cast<size_t>(category) - 1];
}

/// Null when no profiler is attached.
nvtxDomainHandle_t domain() {
  static const nvtxDomainHandle_t handle = [] {
    nvtxDomainHandle_t created = nvtxDomainCreateA("dsa");
    if (created)
      for (const CategoryRow& r : kCategories)
        nvtxDomainNameCategoryA(created, static_cast<uint32_t>(r.category), r.name);
    return created;
  }();
  return handle;
}

nvtxStringHandle_t registered(const char* name) {
  static std::mutex mutex;
  static std::unordered_map<const char*, nvtxStringHandle_t> handles;
  const std::lock_guard lock(mutex);
  auto [entry, is_new] = handles.try_emplace(name, nullptr);
  if (is_new) entry->second = nvtxDomainRegisterStringA(domain(), name);
  return entry->second;
}

void push(const char* name, Category category, int64_t length) {
  nvtxEventAttributes_t event = {};
  event.version = NVTX_VERSION;
  event.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  event.category = static_cast<uint32_t>(category);
  event.colorType = NVTX_COLOR_ARGB;
  event.color = row(category).colour;
  event.payloadType = NVTX_PAYLOAD_TYPE_INT64;
  event.payload.llValue = length;
  event.messageType = NVTX_MESSAGE_TYPE_REGISTERED;
  event.message.registered = registered(name);
  nvtxDomainRangePushEx(domain(), &event);
}

}  // namespace

struct StageClock::State {
  using Clock = std::chrono::steady_clock;

  std::array<double, kCategories.size()> seconds{};
  std::vector<Category> open = {Category::kOther};
  Clock::time_point since = Clock::now();
  /// Category from a sequence number on, ascending: whose forward an autograd node belongs to.
  std::vector<std::pair<uint64_t, Category>> forward_of = {
      {at::sequence_number::peek(), Category::kOther}};
  at::CallbackHandle on_backward_node = at::INVALID_CALLBACK_HANDLE;
  /// Between two nodes of a backward pass: of the one before. What follows a node (sums of its
  /// gradients with others', and into leaves) is its work.
  std::optional<Category> last_node;

  Category current() const { return last_node.value_or(open.back()); }

  void charge() {
    const auto now = Clock::now();
    seconds[static_cast<size_t>(current()) - 1] +=
        std::chrono::duration<double>(now - since).count();
    since = now;
  }

  void note_forward() {
    const uint64_t next = at::sequence_number::peek();
    if (forward_of.back().first == next)
      forward_of.back().second = open.back();
    else
      forward_of.emplace_back(next, open.back());
  }

  void enter(Category category) {
    charge();
    last_node.reset();
    open.push_back(category);
  }

  void leave() {
    charge();
    last_node.reset();
    if (open.size() > 1) open.pop_back();  // the range may be older than this clock
  }

  void leave_node() {
    const Category node = open.back();
    leave();
    last_node = node;
  }

  Category forward_category(int64_t sequence_number) const {
    const auto after = std::upper_bound(
        forward_of.begin(), forward_of.end(), static_cast<uint64_t>(sequence_number),
        [](uint64_t nr, const auto& change) { return nr < change.first; });
    return after == forward_of.begin() ? open.back() : std::prev(after)->second;
  }
};

namespace {

thread_local StageClock::State* active_clock = nullptr;

std::unique_ptr<at::ObserverContext> before_backward_node(const at::RecordFunction& node) {
  if (!active_clock) return nullptr;
  // Leaves sum gradients under the largest number there is, -1 as signed: no forward of their own.
  const bool is_leaf = node.seqNr() < 0;
  active_clock->enter(is_leaf ? active_clock->current()
                              : active_clock->forward_category(node.seqNr()));
  return nullptr;
}

void after_backward_node(const at::RecordFunction&, at::ObserverContext*) {
  if (active_clock) active_clock->leave_node();
}

}  // namespace

Range::Range(const char* name, Category category, int64_t length) {
  if (domain()) {
    push(name, category, length);
    pushed_ = true;
  }
  if (active_clock) {
    active_clock->enter(category);
    active_clock->note_forward();
    counted_ = true;
  }
}

Range::~Range() {
  if (counted_ && active_clock) {
    active_clock->leave();
    active_clock->note_forward();
  }
  if (pushed_) nvtxDomainRangePop(domain());
}

StageClock::StageClock() : state_(std::make_unique<State>()) {
  TORCH_INTERNAL_ASSERT(!active_clock, "a StageClock is already alive on this thread");
  active_clock = state_.get();
  state_->on_backward_node = at::addThreadLocalCallback(
      at::RecordFunctionCallback(before_backward_node, after_backward_node)
          .scopes({at::RecordScope::BACKWARD_FUNCTION}));
}

StageClock::~StageClock() {
  at::removeCallback(state_->on_backward_node);
  active_clock = nullptr;
}

bool StageClock::is_running() {
  return active_clock != nullptr;
}

void StageClock::reassign(Category category, double seconds) {
  if (!active_clock) return;
  active_clock->charge();
  double& from = active_clock->seconds[static_cast<size_t>(active_clock->current()) - 1];
  const double moved = std::clamp(seconds, 0.0, from);
  from -= moved;
  active_clock->seconds[static_cast<size_t>(category) - 1] += moved;
}

double StageClock::seconds(Category category) const {
  state_->charge();
  return state_->seconds[static_cast<size_t>(category) - 1];
}

const char* name(Category category) {
  return row(category).name;
}

}  // namespace dsa::nvtx
