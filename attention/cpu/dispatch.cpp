// Run-time choice of the instruction set.
#include "attention/cpu/dispatch.h"

#include "attention/backend.h"

#include <atomic>

namespace dsa {
namespace {

std::atomic<const cpu::IsaRow*> pinned{nullptr};

const cpu::IsaRow& best_row() {
  static const cpu::IsaRow& best = []() -> const cpu::IsaRow& {
    const cpu::IsaRow* found = &cpu::isa_rows().front();
    for (const cpu::IsaRow& row : cpu::isa_rows())
      if (row.supported()) found = &row;
    return *found;
  }();
  return best;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

const cpu::IsaRow& cpu::isa_in_use() {
  const IsaRow* row = pinned.load(std::memory_order_acquire);
  return row != nullptr ? *row : best_row();
}

void pin_isa(const std::string& isa) {
  if (isa == "auto") {
    pinned.store(nullptr, std::memory_order_release);
    return;
  }
  for (const cpu::IsaRow& row : cpu::isa_rows()) {
    if (isa != row.name || !row.supported()) continue;
    pinned.store(&row, std::memory_order_release);
    return;
  }
  throw Error("isa '" + isa + "' is not available here: this machine and build have " +
              joined(available_isas()) + ", or say auto");
}

std::string active_isa() {
  return cpu::isa_in_use().name;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const cpu::IsaRow& row : cpu::isa_rows())
    if (row.supported()) names.emplace_back(row.name);
  return names;
}

}  // namespace dsa
