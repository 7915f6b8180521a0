// Attention of the stand-in, for `stand_in.cpp`.

#pragma once

#include <ATen/ATen.h>
#include <ATen/native/transformers/attention.h>

#include <array>
#include <cstdint>

#include "stand_in_device.h"

namespace {

// Fused attention, which keeps no matrix of all pairs of positions. A GPU has two such kernels, for
// 16 and for 32 bits; here is one.

constexpr int64_t MATH = 0, FUSED = 1; // of PyTorch's SDPBackend

int64_t choose_attention(
    const at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>& mask,
    double dropout, bool, std::optional<double>, bool) {
  return (mask && mask->defined()) || dropout > 0 ? MATH : FUSED;
}

std::tuple<
    at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt, at::Tensor,
    at::Tensor, at::Tensor>
attention(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, double dropout,
    bool causal, bool, std::optional<double> scale) {
  auto attend = [=] {
    Inside guard;
    at::AutoDispatchBelowADInplaceOrView below;
    return at::_scaled_dot_product_flash_attention_for_cpu(
        on_host(query), on_host(key), on_host(value), dropout, causal, std::nullopt, scale);
  };
  auto [host_output, host_sums] = attend();
  auto output = to_gpu(host_output), sums = to_gpu(host_sums);
  add([=] {
    auto [host_output, host_sums] = attend();
    host_copy(output, host_output);
    host_copy(sums, host_sums);
  });
  auto none = at::Tensor();
  return {output, sums, none, none, query.size(2), key.size(2), none, none, none};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> attention_backward(
    const at::Tensor& gradient, const at::Tensor& query, const at::Tensor& key,
    const at::Tensor& value, const at::Tensor& output, const at::Tensor& sums, const at::Tensor&,
    const at::Tensor&, c10::SymInt, c10::SymInt, double dropout, bool causal, const at::Tensor&,
    const at::Tensor&, std::optional<double> scale) {
  auto derive = [=] {
    Inside guard;
    at::AutoDispatchBelowADInplaceOrView below;
    return at::_scaled_dot_product_flash_attention_for_cpu_backward(
        on_host(gradient), on_host(query), on_host(key), on_host(value), on_host(output),
        on_host(sums), dropout, causal, std::nullopt, scale);
  };
  auto [of_query, of_key, of_value] = derive();
  std::array<at::Tensor, 3> results{to_gpu(of_query), to_gpu(of_key), to_gpu(of_value)};
  add([=] {
    auto [of_query, of_key, of_value] = derive();
    host_copy(results[0], of_query);
    host_copy(results[1], of_key);
    host_copy(results[2], of_value);
  });
  return {results[0], results[1], results[2]};
}

} // namespace
namespace at::native {
REGISTER_CUDA_DISPATCH(_fused_sdp_choice_stub, &choose_attention)
} // namespace at::native
