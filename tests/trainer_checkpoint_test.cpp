// A run that was saved and continued cannot be told from one that was not.
#include "attention/fields.h"
#include "harness/safetensors.h"
#include "tests/temporary_folder.h"
#include "tests/trainer_fixture.h"

#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cstring>

using namespace dsa;
using namespace dsa::testing;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("10 steps equal 5 steps, a checkpoint and 5 more, bit for bit", "[trainer]") {
  const TemporaryFolder folder;
  const std::string file = folder.path("c.safetensors");
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  for (const std::string variant :
       {"dense", "dsa", "random", "oracle", "dsa_untrained", "mla_dense", "mla_dsa"}) {
    CAPTURE(variant);
    const auto straight = tiny_trainer(variant, *batches);
    for (int i = 0; i < 5; ++i) straight->step();
    straight->save(file);
    const auto resumed = tiny_trainer(variant, *batches);
    resumed->step();  // whatever it did before is overwritten
    resumed->load(file);
    CHECK(resumed->steps_done() == 5);
    for (int i = 0; i < 5; ++i) {
      const StepResult a = straight->step(), b = resumed->step();
      CHECK(a.step == b.step);
      CHECK(std::memcmp(&a.loss, &b.loss, sizeof a.loss) == 0);
      CHECK(a.grad_norm == b.grad_norm);
      CHECK(a.learning_rate == b.learning_rate);
    }
    straight->save(file);
    resumed->save(folder.path("d.safetensors"));
    const Safetensors a = read_safetensors(file),
                      b = read_safetensors(folder.path("d.safetensors"));
    CHECK(a.metadata == b.metadata);
    REQUIRE(a.tensors.size() == b.tensors.size());
    for (const auto& [name, tensor] : a.tensors) {
      CAPTURE(name);
      CHECK(tensor.equal(b.tensors.at(name)));
    }
  }
}

TEST_CASE("a checkpoint that does not fit is refused by the tensor's name", "[trainer]") {
  const TemporaryFolder folder;
  const std::string file = folder.path("c.safetensors");
  const Corpus corpus = tiny_corpus();
  const auto batches = training_batches(corpus, 16, 3, 1);
  const auto trainer = tiny_trainer("dense", *batches);
  trainer->save(file);
  const auto refused = [&](auto change, const std::string& part) {
    Safetensors contents = read_safetensors(file);
    change(contents);
    write_safetensors(folder.path("changed"), contents);
    const auto before = trainer->model().parameters().front().detach().clone();
    CHECK_THROWS_WITH(trainer->load(folder.path("changed")), ContainsSubstring(part));
    CHECK(trainer->model().parameters().front().detach().equal(before));
  };
  refused(
      [](Safetensors& c) {
        c.tensors["model.embedding"] = at::zeros({3, 32});
      },
      "model.embedding");
  refused(
      [](Safetensors& c) {
        c.tensors["model.embedding"] = c.tensors["model.embedding"].to(at::kDouble);
      },
      "model.embedding");
  refused([](Safetensors& c) { c.tensors.erase("optimizer.mean.embedding"); },
          "optimizer.mean.embedding");
  refused([](Safetensors& c) { c.tensors["extra"] = at::zeros({1}); }, "extra");
  refused([](Safetensors& c) { c.metadata["variant"] = "dsa"; }, "variant 'dsa'");
  refused([](Safetensors& c) { c.metadata["seed"] = "9"; }, "seed '9'");
  refused([](Safetensors& c) { c.metadata["step"] = "-3"; }, "step");
  refused([](Safetensors& c) { c.metadata.erase("format"); }, "format");
  CHECK_NOTHROW(trainer->load(file));
  CHECK_THROWS_AS(trainer->load(folder.path("none")), Error);
}
