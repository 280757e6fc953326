#include "model/experts.h"

#include "attention/rows.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

namespace dsa {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The rows of one expert.
struct Part {
  int64_t expert, first, count;
  at::Tensor of(const at::Tensor& x) const { return x.narrow(0, first, count); }
};

std::vector<Part> parts_of(const at::Tensor& counts) {
  std::vector<Part> parts;
  int64_t first = 0;
  for (int64_t e = 0; e < counts.size(0); ++e) {
    const int64_t count = counts.const_data_ptr<int64_t>()[e];
    parts.push_back({e, first, count});
    first += count;
  }
  return parts;
}

int64_t most_rows(const std::vector<Part>& parts) {
  int64_t most = 0;
  for (const Part& part : parts) most = std::max(most, part.count);
  return most;
}

struct Experts : torch::autograd::Function<Experts> {
  /// @param weights  in and out of every expert, in turn
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows,
                            const at::Tensor& counts, at::TensorList weights,
                            const rows::Dropping& dropping) {
    const auto parts = parts_of(counts);
    const int64_t width = weights[0].size(0);
    const at::Tensor hidden = at::empty({rows.size(0), width}, rows.options());
    const at::Tensor active = at::empty({most_rows(parts), width}, rows.options());
    at::Tensor done = at::empty_like(rows);
    for (const Part& part : parts) {
      if (part.count == 0) continue;
      const at::Tensor in = weights[2 * part.expert].to(rows.scalar_type());
      const at::Tensor out = weights[2 * part.expert + 1].to(rows.scalar_type());
      at::Tensor before = part.of(hidden), after = active.narrow(0, 0, part.count);
      at::mm_out(before, part.of(rows), in.t());
      rows::silu_dropped(before, dropping, part.first, after);
      at::Tensor result = part.of(done);
      at::mm_out(result, after, out.t());
    }
    variable_list saved = {rows, hidden, counts};
    saved.insert(saved.end(), weights.begin(), weights.end());
    context->save_for_backward(saved);
    context->saved_data["probability"] = dropping.probability;
    context->saved_data["seed"] = static_cast<int64_t>(dropping.seed);
    return done;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows = saved[0], &hidden = saved[1];
    const auto parts = parts_of(saved[2]);
    const rows::Dropping dropping{context->saved_data["probability"].toDouble(),
                                  static_cast<uint64_t>(context->saved_data["seed"].toInt())};
    const at::Tensor d_done = gradients[0].contiguous();
    const at::Tensor d_rows = at::empty_like(rows);
    const at::Tensor scratch = at::empty({2, most_rows(parts), hidden.size(1)}, rows.options());
    variable_list result = {d_rows, at::Tensor()};
    for (const Part& part : parts) {
      const at::Tensor &in = saved[3 + 2 * part.expert], &out = saved[4 + 2 * part.expert];
      if (part.count == 0) {
        result.push_back(at::zeros_like(in)), result.push_back(at::zeros_like(out));
        continue;
      }
      at::Tensor active = scratch[0].narrow(0, 0, part.count);
      at::Tensor d_active = scratch[1].narrow(0, 0, part.count);
      rows::silu_dropped(part.of(hidden), dropping, part.first, active);
      const at::Tensor d_out = at::mm(part.of(d_done).t(), active).to(out.scalar_type());
      at::mm_out(d_active, part.of(d_done), out.to(rows.scalar_type()));
      at::Tensor& d_hidden = active;  // no longer needed
      rows::silu_dropped_backward(part.of(hidden), d_active, dropping, part.first, d_hidden);
      result.push_back(at::mm(d_hidden.t(), part.of(rows)).to(in.scalar_type()));
      result.push_back(d_out);
      at::Tensor d_part = part.of(d_rows);
      at::mm_out(d_part, d_hidden, in.to(rows.scalar_type()));
    }
    result.emplace_back();
    return result;
  }
};

struct Mix : torch::autograd::Function<Mix> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows,
                            const at::Tensor& places, const at::Tensor& shares) {
    context->save_for_backward({rows, places, shares});
    return rows::mix(rows, places, shares);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const rows::MixGradients g =
        rows::mix_backward(gradients[0].contiguous(), saved[0], saved[1], saved[2]);
    return {g.drows, at::Tensor(), g.dshares};
  }
};

/// The same of torch's operations, for float64 and other devices.
at::Tensor apply_one_by_one(const at::Tensor& rows, const std::vector<ExpertWeights>& experts,
                            const at::Tensor& counts, double dropout, bool is_training) {
  std::vector<at::Tensor> done;
  for (const Part& part : parts_of(counts)) {
    const ExpertWeights& expert = experts[static_cast<size_t>(part.expert)];
    const at::Tensor active = at::silu(at::linear(part.of(rows), expert.in));
    done.push_back(at::linear(at::dropout(active, dropout, is_training), expert.out));
  }
  return at::cat(done);
}

}  // namespace

at::Tensor apply_experts(const at::Tensor& rows, const std::vector<ExpertWeights>& experts,
                         const at::Tensor& counts, double dropout, bool is_training) {
  if (!rows::serves(rows)) return apply_one_by_one(rows, experts, counts, dropout, is_training);
  std::vector<at::Tensor> weights;
  for (const ExpertWeights& expert : experts) {
    weights.push_back(expert.in), weights.push_back(expert.out);
  }
  return Experts::apply(rows.contiguous(), counts, at::TensorList(weights),
                        rows::dropping(dropout, is_training));
}

at::Tensor mix_experts(const at::Tensor& rows, const at::Tensor& places, const at::Tensor& shares) {
  if (rows::serves(rows)) return Mix::apply(rows.contiguous(), places, shares.contiguous());
  const at::Tensor sorted = rows.index_select(0, places).unflatten(0, shares.sizes());
  return (sorted * shares.unsqueeze(-1)).sum(1);
}

}  // namespace dsa
