#include "harness/trainer.h"

#include "attention/nvtx.h"
#include "harness/denormals.h"
#include "harness/optimizer.h"
#include "harness/safetensors.h"
#include "harness/stages.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <mutex>

namespace dsa {
namespace {

using nvtx::Category;

/// Torch has one global random stream. A trainer brings its own state into it and takes it out
/// again, so that what else runs between two steps cannot change dropout.
class OwnRandomStream {
 public:
  explicit OwnRandomStream(at::Tensor& state) : state_(state), outer_(exchange(state)) {}
  ~OwnRandomStream() { state_ = exchange(outer_); }
  OwnRandomStream(const OwnRandomStream&) = delete;
  OwnRandomStream& operator=(const OwnRandomStream&) = delete;

 private:
  static at::Tensor exchange(const at::Tensor& state) {
    at::Generator stream = at::detail::getDefaultCPUGenerator();
    const std::lock_guard lock(stream.mutex());
    at::Tensor before = stream.get_state();
    stream.set_state(state);
    return before;
  }

  at::Tensor& state_;
  at::Tensor outer_;
};

at::Tensor seeded_random_state(uint64_t seed) {
  at::Generator stream = at::detail::createCPUGenerator(seed);
  return stream.get_state();
}

double value_or_nan(const at::Tensor& scalar) {
  return scalar.defined() ? scalar.item<double>() : std::numeric_limits<double>::quiet_NaN();
}

void require_choice(const char* field, const std::string& value, const char* first,
                    const char* second) {
  require(value == first || value == second, field, " is '", value, "'; it may be ", first, " or ",
          second);
}

}  // namespace

void check(const TrainConfig& config) {
  require(config.steps >= 1, "train.steps is ", config.steps, "; it must be at least 1");
  check_stages(config);
  require(config.batch >= 1, "train.batch is ", config.batch, "; it must be at least 1");
  require_not_negative("train.warmup-steps", static_cast<double>(config.warmup_steps));
  require_choice("train.precision", config.precision, "f32", "bf16");
  require_choice("train.optimizer", config.optimizer, "adamw", "adam");
  require_choice("train.schedule", config.schedule, "cosine", "constant");
  require_not_negative("train.learning-rate", config.learning_rate);
  require_not_negative("train.indexer-learning-rate", config.indexer_learning_rate);
  require(config.min_learning_rate_fraction >= 0 && config.min_learning_rate_fraction <= 1,
          "train.min-learning-rate-fraction is ", config.min_learning_rate_fraction,
          "; it must lie between 0 and 1");
  require_not_negative("train.weight-decay", config.weight_decay);
  require_not_negative("train.grad-clip", config.grad_clip);
  require_not_negative("train.evaluate-every", static_cast<double>(config.evaluate_every));
  require_not_negative("train.quality-windows", static_cast<double>(config.quality_windows));
  require_not_negative("train.checkpoint-every", static_cast<double>(config.checkpoint_every));
  require(config.equivalence_margin > 0 && std::isfinite(config.equivalence_margin),
          "train.equivalence-margin is ", config.equivalence_margin,
          "; it must be more than 0 nats/token");
}

struct Trainer::Parts {
  std::string variant;
  uint64_t seed = 0;
  TrainConfig config;
  const Batches* batches = nullptr;
  at::Tensor random_state;
  std::shared_ptr<Transformer> model;
  std::unique_ptr<Optimizer> optimizer;
  int64_t step = 0;

  std::string here() const {
    return "variant " + variant + ", seed " + std::to_string(seed) + ", step " +
           std::to_string(step + 1);
  }
  /// Every tensor a checkpoint holds, sharing memory with what is trained.
  std::map<std::string, at::Tensor> tensors() const {
    std::map<std::string, at::Tensor> all;
    for (const auto& item : model->named_parameters()) {
      all["model." + item.key()] = item.value().detach();
    }
    for (const auto& item : model->named_buffers()) all["model." + item.key()] = item.value();
    for (const auto& [name, tensor] : optimizer->state()) all[name] = tensor;
    all["random_state"] = random_state;
    return all;
  }
};

Trainer::Trainer(const std::string& variant, const AttentionConfig& attention,
                 const ModelConfig& model, const TrainConfig& train, const Batches& batches,
                 uint64_t seed)
    : parts_(std::make_unique<Parts>()) {
  check(train);
  parts_->variant = variant;
  parts_->seed = seed;
  parts_->config = train;
  parts_->batches = &batches;
  parts_->random_state = seeded_random_state(seed);
  const OwnRandomStream stream(parts_->random_state);
  parts_->model = std::make_shared<Transformer>(variant, attention, model);
  if (train.precision == "bf16") parts_->model->train_in(at::kBFloat16);
  parts_->optimizer = std::make_unique<Optimizer>(*parts_->model, train);
}

Trainer::~Trainer() = default;

int64_t Trainer::steps_done() const {
  return parts_->step;
}

Transformer& Trainer::model() {
  return *parts_->model;
}

StepResult Trainer::step() {
  Parts& parts = *parts_;
  const auto start = std::chrono::steady_clock::now();
  const FlushDenormals flush(parts.config.flush_denormals);
  const OwnRandomStream stream(parts.random_state);
  const Batch batch = [&] {
    const nvtx::Range range("batch", Category::kData);
    return parts.batches->at(parts.step);
  }();
  parts.model->train();
  const bool staged = parts.model->set_stage(stage_of(parts.config, parts.step));
  {
    const nvtx::Range range("forget_gradients", Category::kOptimizer);
    parts.optimizer->forget_gradients();
  }
  const ModelOutput output = parts.model->forward(batch.tokens, batch.targets);
  const at::Tensor loss =
      parts.model->training_loss(output, indexer_loss_factor(parts.config, parts.step));
  require(std::isfinite(loss.item<double>()), parts.here(), ": the loss is ", loss.item<double>(),
          "; lower train.learning-rate or lengthen train.warmup-steps");
  {
    const nvtx::Range range("backward", Category::kOther);
    loss.backward();
  }
  StepResult result;
  {
    const nvtx::Range range("optimizer", Category::kOptimizer);
    const Optimizer::Norms norms = parts.optimizer->gradient_norms();
    require(std::isfinite(norms.model) && std::isfinite(norms.indexer), parts.here(),
            ": the gradient norm is ", norms.model, " (indexer: ", norms.indexer,
            "); lower train.learning-rate or lengthen train.warmup-steps");
    const LearningRates rates = learning_rates(parts.config, parts.step, staged);
    parts.optimizer->clip(norms);
    parts.optimizer->update(rates.model, rates.indexer);
    result.grad_norm = norms.model;
    result.learning_rate = rates.model;
  }
  result.step = ++parts.step;
  result.loss = output.loss.item<double>();
  result.indexer_loss = value_or_nan(output.indexer_loss);
  result.router_loss = value_or_nan(output.router_loss);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

void Trainer::save(const std::filesystem::path& file) {
  write_safetensors(file, {parts_->tensors(),
                           {{"format", "dsa-checkpoint-1"},
                            {"variant", parts_->variant},
                            {"seed", std::to_string(parts_->seed)},
                            {"step", std::to_string(parts_->step)}}});
}

namespace {

void require_same(const std::string& file, const Safetensors& saved, const std::string& key,
                  const std::string& wanted) {
  const auto found = saved.metadata.find(key);
  require(found != saved.metadata.end(), "'", file, "' has no ", key,
          "; it is no checkpoint of this program");
  require(found->second == wanted, "'", file, "' is a checkpoint with ", key, " '", found->second,
          "', but this run has '", wanted, "'; choose another checkpoint or the same settings");
}

void require_fits(const std::string& file, const std::map<std::string, at::Tensor>& saved,
                  const std::map<std::string, at::Tensor>& ours) {
  for (const auto& [name, tensor] : ours) {
    const auto found = saved.find(name);
    require(found != saved.end(), "'", file, "' has no tensor '", name,
            "', which this model has; was it made with other model settings?");
    const at::Tensor& other = found->second;
    require(other.sizes() == tensor.sizes() && other.dtype() == tensor.dtype(), "'", file,
            "': tensor '", name, "' is ", other.dtype(), " ", other.sizes(),
            ", but this model has ", tensor.dtype(), " ", tensor.sizes(),
            "; use the settings it was made with");
  }
  for (const auto& item : saved) {
    require(ours.contains(item.first), "'", file, "' has a tensor '", item.first,
            "', which this model lacks; was it made with other model settings?");
  }
}

}  // namespace

void Trainer::start_from(const std::filesystem::path& path) {
  const std::string file = path.string();
  const Safetensors saved = read_safetensors(path);
  require_same(file, saved, "format", "dsa-checkpoint-1");
  const auto from = saved.metadata.find("variant");
  const std::string& baseline = variant(parts_->variant).baseline;
  require(from != saved.metadata.end() && from->second == baseline, "'", file,
          "' is a checkpoint of ", from == saved.metadata.end() ? "nothing known" : from->second,
          "; ", parts_->variant, " starts from one of its dense baseline, ", baseline);
  std::map<std::string, at::Tensor> weights, ours;
  for (const auto& [name, tensor] : saved.tensors) {
    if (name.starts_with("model.")) weights[name] = tensor;
  }
  const auto indexer = parts_->model->indexer_parameters();
  for (const auto& item : parts_->model->named_parameters()) {
    const bool own = std::any_of(indexer.begin(), indexer.end(),
                                 [&](const at::Tensor& p) { return p.is_same(item.value()); });
    if (!own) ours["model." + item.key()] = item.value().detach();
  }
  require_fits(file, weights, ours);
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : ours) tensor.copy_(weights.at(name));
}

void Trainer::load(const std::filesystem::path& path) {
  const std::string file = path.string();
  const Safetensors saved = read_safetensors(path);
  require_same(file, saved, "format", "dsa-checkpoint-1");
  require_same(file, saved, "variant", parts_->variant);
  require_same(file, saved, "seed", std::to_string(parts_->seed));
  const auto step = saved.metadata.find("step");
  require(step != saved.metadata.end() && !step->second.empty() &&
              step->second.find_first_not_of("0123456789") == std::string::npos &&
              step->second.size() < 18,
          "'", file, "' has no valid step in its metadata; it is damaged");
  const auto ours = parts_->tensors();
  require_fits(file, saved.tensors, ours);
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : ours) tensor.copy_(saved.tensors.at(name));
  parts_->step = std::stoll(step->second);
  // Evaluation reads as the last step did.
  parts_->model->set_stage(stage_of(parts_->config, std::max<int64_t>(parts_->step - 1, 0)));
}

}  // namespace dsa
