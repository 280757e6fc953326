// The layers behind the rows of variant.cpp. Nothing else includes this: the rest of the project
// makes layers through `variant(name).make`.
#pragma once
#include "attention/variant.h"

namespace dsa {

std::shared_ptr<AttentionLayer> make_dense(const AttentionConfig& config);
std::shared_ptr<AttentionLayer> make_dsa(const AttentionConfig& config);
std::shared_ptr<AttentionLayer> make_dsa_untrained(const AttentionConfig& config);
std::shared_ptr<AttentionLayer> make_window(const AttentionConfig& config);
std::shared_ptr<AttentionLayer> make_random(const AttentionConfig& config);
std::shared_ptr<AttentionLayer> make_oracle(const AttentionConfig& config);
std::shared_ptr<AttentionLayer> make_dsa_as_published(const AttentionConfig& config);
std::shared_ptr<AttentionLayer> make_dsa_masked(const AttentionConfig& config);
std::shared_ptr<AttentionLayer> make_mla_dense(const AttentionConfig& config);
std::shared_ptr<AttentionLayer> make_mla_dsa(const AttentionConfig& config);

}  // namespace dsa
