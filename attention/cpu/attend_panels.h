// The order in which a block of lists (of selected keys, or of the queries that selected a key) is
// walked: panel after panel of neighbouring rows, so that rows come from the L2 cache, a register's
// worth of slots at a time. The order is sorted once and then walked without a branch that data
// decides: a misprediction would drain the loads that hide the cache's latency.
#pragma once
#include "attention/cpu/attend_kernels.h"
#include "attention/cpu/attend_rows.h"

namespace dsa::cpu {

/// A register's worth of slots of one list; the last group of a list may be shorter.
struct Group {
  int32_t list, slot;
};

/// Groups by panel, then by list. A group belongs to the panel of its first row and is done whole.
struct Panels {
  int32_t shift;   ///< a panel is 1 << shift rows
  int64_t count;   ///< panels
  int32_t* ends;   ///< [count]: groups in this panel and those before it
  int32_t* ahead;  ///< so many panels before it is walked a panel is fetched
  Group* groups;
  int32_t*
      ids;  ///< [groups][kWidth]: in the order in which they are read, the shorter groups filled up
};

/// Rows of one matrix, of which a later panel is fetched while this one is worked on.
struct PanelRows {
  const float* rows;
  int64_t row;  ///< floats
};

inline constexpr int64_t kLinesPerGroup = 16;  ///< of a later panel, at most: 4 rows of 64 floats
inline constexpr int64_t kMostAhead = 8;  ///< panels: 256 KiB of rows forward, 512 KiB backward
inline constexpr int64_t kLineBytes = 64;

template <class Isa>
int64_t panels_scratch(int64_t groups, int64_t panels) {
  return rounded_up<Isa>(panels + 1) + groups * Isa::kWidth + 2 * groups;
}

template <class Isa>
Panels panels_in(int32_t* scratch, int32_t shift, int64_t rows, int64_t groups) {
  const int64_t count = (rows >> shift) + 1;
  int32_t* ids = scratch + rounded_up<Isa>(count + 1);
  return {
      shift, count, scratch, scratch + count, reinterpret_cast<Group*>(ids + groups * Isa::kWidth),
      ids};
}

/// The first kWidth of `left` ids, filled up with the last: a row of another key must not enter, even with
/// weight 0, for it may hold NaN.
template <class Isa>
void copy_group(const int32_t* ids, int64_t left, int32_t* group) {
  if (left >= Isa::kWidth) return Isa::istore(group, Isa::iload(ids));
  for (int64_t j = 0; j < Isa::kWidth; ++j) group[j] = ids[j < left ? j : left - 1];
}

/// Fills p: a counting sort by panel, which keeps the order of lists and slots.
/// @param list_of, count_of  ids of list i, ascending, and how many they are
template <class Isa, class ListOf, class CountOf>
void sort_groups(const Panels& p, int64_t lists, const ListOf& list_of, const CountOf& count_of) {
  constexpr int64_t W = Isa::kWidth;
  int64_t reach = 0, groups = 0;
  for (int64_t i = 0; i < p.count; ++i) p.ends[i] = 0;
  for (int64_t i = 0; i < lists; ++i) {
    const int32_t* list = list_of(i);
    const int64_t count = count_of(i), whole = count / W * W;
    for (int64_t c = 0; c < count; c += W) ++p.ends[list[c] >> p.shift];
    for (int64_t c = 0; c < whole; c += W) reach += list[c + W - 1] - list[c];
    groups += whole / W;
  }
  // A group reads beyond its panel, so what it reads there must have come before that panel's turn.
  const int64_t panels = groups > 0 ? (reach / groups + (int64_t{1} << p.shift) - 1) >> p.shift : 0;
  *p.ahead = static_cast<int32_t>(panels + 1 < kMostAhead ? panels + 1 : kMostAhead);
  int32_t before = 0;
  for (int64_t i = 0; i < p.count; ++i) {
    const int32_t here = p.ends[i];
    p.ends[i] = before;
    before += here;
  }
  for (int64_t i = 0; i < lists; ++i) {
    const int32_t* list = list_of(i);
    const int64_t count = count_of(i);
    for (int64_t c = 0; c < count; c += W) {
      const int64_t at = p.ends[list[c] >> p.shift]++;
      p.groups[at] = {static_cast<int32_t>(i), static_cast<int32_t>(c)};
      copy_group<Isa>(list + c, count - c, p.ids + at * W);
    }
  }
}

/// Cache lines of a later panel, and how many of them one group asks for.
struct LaterPanel {
  const char* line;
  int64_t lines_per_group;

  LaterPanel(const Panels& p, int64_t panel, int64_t groups, const PanelRows& m)
      : line(reinterpret_cast<const char*>(m.rows + ((panel + *p.ahead) << p.shift) * m.row)),
        lines_per_group(0) {
    // The last panel may not be a whole one.
    if (panel + *p.ahead + 1 >= p.count || groups == 0) return;
    const int64_t lines = ((m.row * int64_t{sizeof(float)}) << p.shift) / kLineBytes;
    lines_per_group = (lines + groups - 1) / groups;
    if (lines_per_group > kLinesPerGroup) lines_per_group = kLinesPerGroup;
  }

  [[gnu::always_inline]] void prefetch() {
    for (int64_t i = 0; i < lines_per_group; ++i, line += kLineBytes)
      __builtin_prefetch(line, 0, 2);
  }
};

/// Calls visit(list, slot, ids, lanes) for every group: ids are kWidth rows, of which those in
/// `lanes` are the list's slots from `slot` on.
template <class Isa, class CountOf, class Visit>
[[gnu::always_inline]] inline void walk_groups(const Panels& p, const CountOf& count_of,
                                               const PanelRows& first, const PanelRows& second,
                                               const Visit& visit) {
  int64_t i = 0;
  for (int64_t panel = 0; panel < p.count; ++panel) {
    const int64_t end = p.ends[panel];
    LaterPanel a(p, panel, end - i, first), b(p, panel, end - i, second);
    for (; i < end; ++i) {
      a.prefetch();
      b.prefetch();
      const Group now = p.groups[i];
      visit(int64_t{now.list}, int64_t{now.slot}, p.ids + i * Isa::kWidth,
            Isa::first(count_of(now.list) - now.slot));
    }
  }
}

}  // namespace dsa::cpu
