// DSA_TEST_ISA=avx2 dsa-tests ...: every test case starts with that instruction set pinned.
#include "attention/backend.h"

#include <catch2/reporters/catch_reporter_event_listener.hpp>
#include <catch2/reporters/catch_reporter_registrars.hpp>

#include <cstdlib>

namespace {

class IsaListener : public Catch::EventListenerBase {
 public:
  using EventListenerBase::EventListenerBase;
  void testCaseStarting(const Catch::TestCaseInfo&) override {
    if (const char* isa = std::getenv("DSA_TEST_ISA")) dsa::pin_isa(isa);
  }
};

CATCH_REGISTER_LISTENER(IsaListener)

}  // namespace
