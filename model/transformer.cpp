#include "model/transformer.h"

#include "attention/nvtx.h"
#include "model/head.h"
#include "model/moe.h"
#include "model/residual.h"

#include <ATen/Functions.h>

#include <cmath>

namespace dsa {
namespace {

constexpr double kNormEpsilon = 1e-6;

class RmsNorm : public torch::nn::Module {
 public:
  explicit RmsNorm(int64_t width) { scale_ = register_parameter("scale", at::ones({width})); }
  at::Tensor forward(const at::Tensor& hidden, at::ScalarType type) {
    return rms_norm(hidden, scale_, kNormEpsilon, type);
  }

 private:
  at::Tensor scale_;
};

/// Pre-norm attention and MLP, each added to the residual stream.
class Block : public torch::nn::Module {
 public:
  Block(const AttentionVariant& variant, const AttentionConfig& attention,
        const ModelConfig& config)
      : dropout_(config.dropout) {
    attention_norm_ =
        register_module("attention_norm", std::make_shared<RmsNorm>(attention.d_model));
    attention_ = register_module("attention", variant.make(attention));
    mlp_norm_ = register_module("mlp_norm", std::make_shared<RmsNorm>(attention.d_model));
    if (config.n_experts > 0) {
      moe_ = register_module("moe", std::make_shared<Moe>(attention.d_model, config));
    } else {
      mlp_ = register_module(
          "mlp", std::make_shared<Mlp>(attention.d_model, config.expert_width, config.dropout));
    }
  }

  struct Output {
    at::Tensor hidden, indexer_loss, router_loss;
  };
  /// @param type  of everything that a branch computes
  Output forward(const at::Tensor& hidden, const at::Tensor& positions, at::ScalarType type) {
    Output output;
    at::Tensor between;
    {
      const nvtx::Range range("attention_branch", nvtx::Category::kAttention, hidden.size(1));
      const AttentionOutput attended =
          attention_->forward(attention_norm_->forward(hidden, type), positions);
      between = add_branch(hidden, attended.hidden, dropout_, is_training());
      output.indexer_loss = attended.indexer_loss;
    }
    const nvtx::Range range("moe_branch", nvtx::Category::kMoe, hidden.size(1));
    const at::Tensor normed = mlp_norm_->forward(between, type);
    const MlpOutput mixed = moe_ ? moe_->forward(normed) : MlpOutput{mlp_->forward(normed), {}};
    output.hidden = add_branch(between, mixed.hidden, dropout_, is_training());
    output.router_loss = mixed.router_loss;
    return output;
  }

  const std::shared_ptr<AttentionLayer>& attention() const { return attention_; }
  void compute_all_experts(bool on) {
    if (moe_) moe_->all_experts = on;
  }

 private:
  double dropout_;
  std::shared_ptr<RmsNorm> attention_norm_, mlp_norm_;
  std::shared_ptr<AttentionLayer> attention_;
  std::shared_ptr<Moe> moe_;  ///< one of the two
  std::shared_ptr<Mlp> mlp_;
};

int64_t elements(const std::vector<at::Tensor>& tensors) {
  int64_t total = 0;
  for (const auto& tensor : tensors) total += tensor.numel();
  return total;
}

bool in_indexer(const std::string& parameter) {
  return parameter.find(".indexer.") != std::string::npos;
}

/// Mean of the defined ones; undefined if there is none.
at::Tensor mean_of(const std::vector<at::Tensor>& losses) {
  at::Tensor sum;
  for (const auto& loss : losses) sum = sum.defined() ? sum + loss : loss;
  return sum.defined() ? sum / static_cast<double>(losses.size()) : sum;
}

}  // namespace

struct Transformer::Parts {
  const AttentionVariant* variant = nullptr;
  AttentionConfig attention;
  ModelConfig model;
  at::Tensor embedding;  ///< [vocab_size, d_model], also the head
  std::vector<std::shared_ptr<Block>> blocks;
  std::shared_ptr<RmsNorm> final_norm;
  at::ScalarType training_type = at::kFloat;
};

void check(const ModelConfig& config) {
  const auto positive = [](const char* field, int64_t value) {
    require(value >= 1, field, " is ", value, "; it must be at least 1");
  };
  const auto probability = [](const char* field, double value) {
    require(value >= 0 && value < 1, field, " is ", value,
            "; it must be at least 0 and less than 1");
  };
  positive("n-layers", config.n_layers);
  positive("expert-width", config.expert_width);
  require(config.vocab_size >= 0, "vocab-size is ", config.vocab_size,
          "; it must be positive, or 0 to take the data's");
  require(config.n_experts >= 0, "n-experts is ", config.n_experts,
          "; it must be positive, or 0 for one dense MLP");
  require(config.n_experts == 0 || (config.n_active >= 1 && config.n_active <= config.n_experts),
          "n-active is ", config.n_active, "; it must be between 1 and n-experts, which is ",
          config.n_experts);
  probability("dropout", config.dropout);
  require(config.router_noise >= 0, "router-noise is ", config.router_noise,
          "; a standard deviation is 0 or positive");
  require(config.embedding_std > 0, "embedding-std is ", config.embedding_std,
          "; it must be positive");
  require(config.load_balance_weight >= 0, "load-balance-weight is ", config.load_balance_weight,
          "; it must be 0 or positive");
  require(config.head_chunk >= 0, "head-chunk is ", config.head_chunk,
          "; it must be positive, or 0 to choose by size");
}

Transformer::Transformer(const std::string& variant_name, const AttentionConfig& attention,
                         const ModelConfig& model)
    : parts_(std::make_shared<Parts>()) {
  check(attention);
  check(model);
  require(model.vocab_size > 0, "vocab-size is 0 (the data's); set it before making a model");
  parts_->variant = &variant(variant_name);
  parts_->attention = attention;
  parts_->model = model;
  parts_->embedding = register_parameter(
      "embedding",
      at::empty({model.vocab_size, attention.d_model}).normal_(0.0, model.embedding_std));
  for (int64_t i = 0; i < model.n_layers; ++i) {
    parts_->blocks.push_back(register_module(
        "block" + std::to_string(i), std::make_shared<Block>(*parts_->variant, attention, model)));
  }
  parts_->final_norm = register_module("final_norm", std::make_shared<RmsNorm>(attention.d_model));
}

void Transformer::train_in(at::ScalarType type) {
  require(type == at::kFloat || type == at::kBFloat16,
          "a model trains in float32 or bfloat16, not ", type);
  parts_->training_type = type;
}

at::Tensor Transformer::embed(const at::Tensor& tokens,
                              const c10::intrusive_ptr<TiedGradient>& tied) const {
  require(tokens.dim() == 2 && tokens.scalar_type() == at::kLong, "tokens are ",
          tokens.scalar_type(), " ", tokens.sizes(), "; they must be int64 [B, T]");
  const nvtx::Range range("embedding", nvtx::Category::kHead, tokens.size(1));
  return look_up(parts_->embedding, tokens, tied);
}

at::Tensor Transformer::embed(const at::Tensor& tokens) const {
  return embed(tokens, c10::make_intrusive<TiedGradient>());
}

Transformer::Trunk Transformer::trunk(at::Tensor hidden) {
  const at::Tensor positions = at::arange(hidden.size(1), at::TensorOptions(at::kLong));
  const bool narrow = is_training() && parts_->training_type == at::kBFloat16;
  const at::ScalarType type = narrow ? at::kBFloat16 : hidden.scalar_type();
  std::vector<at::Tensor> indexer_losses, router_losses;
  for (const auto& block : parts_->blocks) {
    const Block::Output output = block->forward(hidden, positions, type);
    hidden = output.hidden;
    if (output.indexer_loss.defined()) indexer_losses.push_back(output.indexer_loss);
    if (output.router_loss.defined()) router_losses.push_back(output.router_loss);
  }
  const nvtx::Range range("final_norm", nvtx::Category::kHead, hidden.size(1));
  return {parts_->final_norm->forward(hidden, type), mean_of(indexer_losses),
          mean_of(router_losses)};
}

ModelOutput Transformer::forward(const at::Tensor& tokens, const at::Tensor& targets) {
  require(targets.sizes() == tokens.sizes(), "tokens are ", tokens.sizes(), " but targets ",
          targets.sizes(), "; they must have the same shape");
  const auto tied = c10::make_intrusive<TiedGradient>();
  const Trunk trunk_output = trunk(embed(tokens, tied));
  const nvtx::Range range("head", nvtx::Category::kHead, tokens.size(1));
  const HeadOutput head = linear_cross_entropy(trunk_output.hidden.flatten(0, 1), parts_->embedding,
                                               targets.flatten(), parts_->model.head_chunk, tied);
  return {head.loss, head.token_losses.view(tokens.sizes()), head.correct.view(tokens.sizes()),
          trunk_output.indexer_loss, trunk_output.router_loss};
}

at::Tensor Transformer::training_loss(const ModelOutput& output, double indexer_factor) const {
  at::Tensor loss = output.loss;
  if (output.indexer_loss.defined()) {
    loss = loss + output.indexer_loss * (parts_->attention.indexer_loss_weight * indexer_factor);
  }
  if (output.router_loss.defined()) {
    loss = loss + output.router_loss * parts_->model.load_balance_weight;
  }
  return loss;
}

at::Tensor Transformer::logits(const at::Tensor& tokens) {
  return at::linear(hidden_of(embed(tokens)).to(parts_->embedding.scalar_type()),
                    parts_->embedding);
}

at::Tensor Transformer::hidden_of(const at::Tensor& embedded) {
  return trunk(embedded).hidden;
}

const at::Tensor& Transformer::embedding() const {
  return parts_->embedding;
}

void Transformer::compute_all_experts(bool on) {
  for (const auto& block : parts_->blocks) block->compute_all_experts(on);
}

std::vector<std::shared_ptr<AttentionLayer>> Transformer::attention_layers() {
  std::vector<std::shared_ptr<AttentionLayer>> layers;
  for (const auto& block : parts_->blocks) layers.push_back(block->attention());
  return layers;
}

bool Transformer::set_stage(TrainingStage stage) {
  bool any = false;
  for (const auto& layer : attention_layers()) {
    if (!layer->has_stages()) continue;
    layer->stage = stage;
    any = true;
  }
  if (!any) return false;
  for (auto& parameter : named_parameters()) {
    parameter.value().requires_grad_(stage != TrainingStage::kIndexer ||
                                     in_indexer(parameter.key()));
  }
  return true;
}

std::vector<at::Tensor> Transformer::indexer_parameters() {
  std::vector<at::Tensor> found;
  for (const auto& parameter : named_parameters()) {
    if (in_indexer(parameter.key())) found.push_back(parameter.value());
  }
  return found;
}

int64_t Transformer::vocab_size() const {
  return parts_->model.vocab_size;
}

int64_t Transformer::parameter_count() {
  return elements(parameters());
}

int64_t Transformer::active_parameter_count() {
  const ModelConfig& model = parts_->model;
  if (model.n_experts == 0) return parameter_count();
  const int64_t expert = 2 * parts_->attention.d_model * model.expert_width;
  return parameter_count() - model.n_layers * (model.n_experts - model.n_active) * expert;
}

/// 6 FLOPs a token for each weight it multiplies (the embedding counts once, as the head; looking a
/// token up is free), 4 in the indexer (its input needs no gradient), plus the attention cores.
double Transformer::flops_per_token(int64_t length) const {
  auto& self = const_cast<Transformer&>(*this);  // torch's parameters() is not const
  const double indexer = static_cast<double>(elements(self.indexer_parameters()));
  const double multiplied = static_cast<double>(self.active_parameter_count()) - indexer;
  const double core = parts_->variant->training_cost(parts_->attention, 1, length).flops *
                      static_cast<double>(parts_->model.n_layers) / static_cast<double>(length);
  return 6.0 * multiplied + 4.0 * indexer + core;
}

}  // namespace dsa
