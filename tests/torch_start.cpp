// Starts torch as dsa-bench does, before the first test.
#include "attention/torch_start.h"

#include <catch2/reporters/catch_reporter_event_listener.hpp>
#include <catch2/reporters/catch_reporter_registrars.hpp>

namespace {

class StartTorch : public Catch::EventListenerBase {
 public:
  using Catch::EventListenerBase::EventListenerBase;
  void testRunStarting(const Catch::TestRunInfo& /*info*/) override { dsa::start_vector_math(); }
};

}  // namespace

CATCH_REGISTER_LISTENER(StartTorch)
