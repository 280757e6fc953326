// `dsa-bench steps`: bare training steps on request, a line of standard input a request, a line of
// JSON an answer. What another trainer is compared with: scripts/compare_trainer.py speaks to both.
#include "bench/commands.h"
#include "bench/session.h"
#include "harness/memory.h"
#include "harness/safetensors.h"
#include "harness/stage_trace.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <nlohmann/json.hpp>

#include <iostream>
#include <sstream>

namespace dsa::bench {
namespace {

using Json = nlohmann::ordered_json;

/// One variant, length and seed, as the command asks.
class Steps {
 public:
  explicit Steps(const RunConfig& config)
      : resident_at_start_(resident_bytes().value_or(0)),
        config_(config),
        corpus_(load_corpus(config.task, config.data)),
        batches_(training_batches(config.task, corpus_, config.lengths.front(), config.train.batch,
                                  config.seeds.front())) {
    if (config_.model.vocab_size == 0) config_.model.vocab_size = corpus_.vocab_size;
    trainer_ = std::make_unique<Trainer>(config_.variants.front(), config_.attention, config_.model,
                                         config_.train, *batches_, config_.seeds.front());
  }

  Json ready() {
    return {{"ready", config_.variants.front()},
            {"parameters", trainer_->model().parameter_count()}};
  }

  /// @throws Error for a request that is none
  void answer(const std::string& request) {
    std::istringstream words(request);
    std::string verb, argument, beyond;
    words >> verb >> argument;
    int64_t count = 0;
    std::istringstream number(argument);
    const bool counts = number >> count && number.eof() && count > 0 && !(words >> beyond);
    if (verb == "start" && !argument.empty()) {
      write_start(argument);
      say({{"written", argument}});
    } else if ((verb == "step" || verb == "trace") && counts) {
      for (; count > 0; --count) verb == "step" ? step() : trace();
    } else if (verb == "memory") {
      say({{"peak_bytes", peak_resident_bytes().value_or(0) - resident_at_start_}});
    } else {
      throw Error("'" + request + "' is no request; they are: start FILE, step N, trace N, memory");
    }
  }

  static void say(const Json& answer) { std::cout << answer.dump() << std::endl; }

 private:
  void step() {
    const StepResult result = trainer_->step();
    say({{"step", result.step}, {"loss", result.loss}, {"seconds", result.seconds}});
  }

  void trace() {
    const StageTrace trace = traced_step(*trainer_);
    say({{"step", trainer_->steps_done()}, {"seconds", trace.seconds}, {"stages", trace.stages}});
  }

  /// Weights as they are, the batches of all steps, and the settings: all that a peer needs.
  void write_start(const std::string& file) {
    Safetensors start;
    for (const auto& item : trainer_->model().named_parameters()) {
      start.tensors["model." + item.key()] = item.value().detach();
    }
    std::vector<at::Tensor> tokens, targets;
    for (int64_t step = 0; step < config_.train.steps; ++step) {
      const Batch batch = batches_->at(step);
      tokens.push_back(batch.tokens), targets.push_back(batch.targets);
    }
    start.tensors["tokens"] = at::stack(tokens);
    start.tensors["targets"] = at::stack(targets);
    start.metadata = {{"format", "dsa-start-1"},
                      {"variant", config_.variants.front()},
                      {"config", to_json(config_)}};
    write_safetensors(file, start);
  }

  double resident_at_start_;
  RunConfig config_;
  Corpus corpus_;
  std::unique_ptr<Batches> batches_;
  std::unique_ptr<Trainer> trainer_;
};

}  // namespace

int steps(const CommandLine& line) {
  const RunConfig& config = line.config;
  check(config);
  require(config.variants.size() == 1 && config.lengths.size() == 1 && config.seeds.size() == 1,
          "steps: give one of --variants, one of --lengths and one of --seeds; they are ",
          config.variants.size(), ", ", config.lengths.size(), " and ", config.seeds.size());
  if (config.threads > 0) at::set_num_threads(static_cast<int>(config.threads));
  pin_isa(config.isa);
  Steps run(config);
  Steps::say(run.ready());
  for (std::string request; std::getline(std::cin, request);) run.answer(request);
  return kFine;
}

}  // namespace dsa::bench
