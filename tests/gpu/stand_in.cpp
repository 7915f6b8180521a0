// A GPU for tests on machines without one: host memory under PyTorch's device type CUDA, for a
// PyTorch built without CUDA. The CPU's kernels compute. What fails on a GPU fails here, too:
//
// * an operator that gets tensors of different devices;
// * an allocation beyond the limit (out of memory);
// * in a capture (CUDA graphs), whatever waits for the GPU or reads unpinned host memory;
// * in the debug mode for synchronisation, what makes the host wait: copies, values read on the
//   host, and the operators of `waits`.
//
// A captured graph repeats its operators with the tensors of the capture. Not imitated: streams,
// speed, rounding, the caching allocator, and memory that kernels take for themselves.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <torch/library.h>

#include "stand_in_attention.h"
#include "stand_in_device.h"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

// Operators that do not compute

at::Tensor empty(
    c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(
      C10_AS_INTARRAYREF_SLOW(size), &allocator, c10::DispatchKeySet(KEY),
      c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(
    c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &allocator,
      c10::DispatchKeySet(KEY), c10::dtype_or_default(dtype));
}

at::Tensor& copy(at::Tensor& target, const at::Tensor& source, bool non_blocking) {
  if (target.is_cpu() || source.is_cpu()) {
    TORCH_CHECK(inside || !capture, "operation not permitted when stream is capturing: copy_");
    if (!non_blocking) {
      wait("copy_");
    }
  }
  host_copy(target, source);
  add([target, source] { host_copy(target, source); });
  return target;
}

at::Tensor copy_from(const at::Tensor& source, const at::Tensor& target, bool non_blocking) {
  at::Tensor to = target;
  return copy(to, source, non_blocking);
}

at::Tensor copy_from_and_resize(const at::Tensor& source, const at::Tensor& target) {
  target.resize_(source.sizes());
  return copy_from(source, target, false);
}

at::Scalar local_scalar_dense(const at::Tensor& self) {
  wait("item");
  return on_host(self).item();
}

const at::Tensor& resize(
    const at::Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  const auto& storage = impl->unsafe_storage();
  size_t bytes = (impl->storage_offset() + self.numel()) * self.itemsize();
  if (bytes > storage.nbytes()) {
    auto data = allocator.allocate(bytes);
    if (storage.nbytes()) {
      std::memcpy(data.get(), storage.data(), storage.nbytes());
    }
    storage.unsafeGetStorageImpl()->set_data_ptr(std::move(data));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
  return self;
}

at::Tensor as_strided(
    const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
    std::optional<c10::SymInt> offset) {
  return at::native::as_strided_tensorimpl(
      self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
      offset ? std::optional<int64_t>(offset->expect_int()) : std::nullopt);
}

at::Tensor view(const at::Tensor& self, c10::SymIntArrayRef size) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}

at::Tensor reshape_alias(
    const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(
      self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

// All others

void check_devices(const c10::OperatorHandle& op, const torch::jit::Stack& arguments) {
  bool host = false, gpu = false;
  auto look = [&](const at::Tensor& tensor) {
    if (tensor.defined()) {
      host = host || (tensor.is_cpu() && tensor.dim() > 0); // GPUs take scalars of the host
      gpu = gpu || !tensor.is_cpu();
    }
  };
  for (const auto& value : arguments) {
    if (value.isTensor()) {
      look(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) {
        look(tensor);
      }
    }
  }
  TORCH_CHECK(
      !(host && gpu), "Expected all tensors to be on the same device: ", op.schema().name());
}

torch::jit::Stack compute(const c10::OperatorHandle& op, const torch::jit::Stack& arguments) {
  Inside guard;
  at::AutoDispatchBelowADInplaceOrView below;
  torch::jit::Stack stack = arguments;
  at::native::cpu_fallback(op, &stack);
  return stack;
}

void replay(
    const c10::OperatorHandle& op, const torch::jit::Stack& arguments,
    const torch::jit::Stack& results) {
  auto again = compute(op, arguments);
  auto fill = [](const at::Tensor& tensor, const at::Tensor& value) {
    if (tensor.defined() && !tensor.is_same(value)) {
      host_copy(tensor, value);
    }
  };
  for (size_t i = 0; i < results.size(); ++i) {
    if (results[i].isTensor()) {
      fill(results[i].toTensor(), again[i].toTensor());
    } else if (results[i].isTensorList()) {
      auto tensors = results[i].toTensorVector(), values = again[i].toTensorVector();
      for (size_t k = 0; k < tensors.size(); ++k) {
        fill(tensors[k], values[k]);
      }
    }
  }
}

// Operators whose results' sizes depend on values, as far as PyTorch's kernels wait for them, and
// those that return a value to the host.
bool waits(const c10::OperatorHandle& op, const torch::jit::Stack& arguments) {
  static const std::set<std::string> sizes{
      "aten::nonzero", "aten::masked_select", "aten::repeat_interleave", "aten::_unique2",
      "aten::unique_dim", "aten::unique_consecutive", "aten::bincount"};
  const auto& schema = op.schema();
  for (const auto& result : schema.returns()) {
    if (result.type()->kind() != c10::TypeKind::TensorType &&
        result.type()->kind() != c10::TypeKind::ListType) {
      return true;
    }
  }
  if (sizes.count(schema.name())) {
    return true;
  }
  if (schema.name().rfind("aten::index", 0) != 0 && schema.name().rfind("aten::_index", 0) != 0) {
    return false;
  }
  for (const auto& value : arguments) { // a mask is an index of nonzero values
    if (value.isList() && !value.isIntList() && !value.isDoubleList() && !value.isBoolList()) {
      for (const c10::IValue& index : value.toListRef()) {
        if (index.isTensor() && index.toTensor().defined() &&
            index.toTensor().scalar_type() == at::kBool) {
          return true;
        }
      }
    }
  }
  return false;
}

// A graph keeps the values of the host's scalars.
torch::jit::Stack with_own_scalars(torch::jit::Stack arguments) {
  for (auto& value : arguments) {
    if (value.isTensor() && value.toTensor().defined() && value.toTensor().is_cpu()) {
      value = value.toTensor().clone();
    }
  }
  return arguments;
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  auto last = torch::jit::last(*stack, op.schema().arguments().size());
  torch::jit::Stack arguments(last.begin(), last.end());
  check_devices(op, arguments);
  if (waits(op, arguments)) {
    wait(op.schema().name().c_str());
  }
  auto results = compute(op, arguments);
  if (capture && !inside) {
    add([op, results, kept = with_own_scalars(arguments)] { replay(op, kept, results); });
  }
  torch::jit::drop(*stack, arguments.size());
  stack->insert(stack->end(), results.begin(), results.end());
}

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("copy_", &copy);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  m.impl("resize_", &resize);
  m.impl("as_strided", &as_strided);
  m.impl("view", &view);
  m.impl("_reshape_alias", &reshape_alias);
  m.impl("_scaled_dot_product_flash_attention", &attention);
  m.impl("_scaled_dot_product_flash_attention_backward", &attention_backward);
}

} // namespace

extern "C" {
size_t gpu_allocated() {
  return allocated;
}
size_t gpu_peak() {
  return peak;
}
void gpu_reset_peak() {
  peak = allocated.load();
}
void gpu_set_limit(size_t bytes) {
  limit = bytes;
}
void gpu_set_sync_debug_mode(bool error) {
  waiting_is_an_error = error;
}
void gpu_capture_begin() {
  delete capture.exchange(new Graph);
}
void* gpu_capture_end() {
  return capture.exchange(nullptr);
}
bool gpu_replay(void* graph) {
  try {
    for (const auto& work : *static_cast<Graph*>(graph)) {
      work();
    }
    return true;
  } catch (const std::exception& error) {
    std::fputs(error.what(), stderr);
    return false;
  }
}
void gpu_free_graph(void* graph) {
  delete static_cast<Graph*>(graph);
}
}
