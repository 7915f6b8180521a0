// A GPU for tests on machines without one: host memory under PyTorch's device type CUDA, for a
// PyTorch built without CUDA. The CPU's kernels compute. What fails on a GPU fails here, too:
//
// * an operator that gets tensors of different devices;
// * an allocation beyond the limit (out of memory);
// * in a capture (CUDA graphs), whatever waits for the GPU or reads unpinned host memory;
// * in the debug mode for synchronisation, whatever makes the host wait.
//
// A captured graph repeats its operators with the tensors of the capture. Not imitated: streams,
// speed, rounding, the caching allocator, and memory that kernels take for themselves.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

namespace {

constexpr auto GPU = c10::DeviceType::CUDA;
constexpr auto KEY = c10::DispatchKey::CUDA;

// Memory

std::atomic<size_t> allocated{0}, peak{0}, limit{SIZE_MAX};

struct Block {
  void* data;
  size_t bytes;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  allocated -= block->bytes;
  std::free(block->data);
  delete block;
}

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    TORCH_CHECK_WITH(
        OutOfMemoryError, allocated + bytes <= limit, "CUDA out of memory. Tried to allocate ",
        bytes, " bytes.");
    size_t now = allocated += bytes, before = peak;
    while (before < now && !peak.compare_exchange_weak(before, now)) {
    }
    auto* block = new Block{bytes ? std::malloc(bytes) : nullptr, bytes};
    return {block->data, block, &release, c10::Device(GPU, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return nullptr;
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};
Allocator allocator;
REGISTER_ALLOCATOR(GPU, &allocator);

// Device and streams: there is one of each, and everything is done at once.

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return GPU;
  }
  c10::Device exchangeDevice(c10::Device) const override {
    return getDevice();
  }
  c10::Device getDevice() const override {
    return {GPU, 0};
  }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return getStream(device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return stream;
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return 1;
  }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag)
      const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override {
    return true;
  }
  void synchronizeStream(const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard);

struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override {
    return true;
  }
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return true;
  }
  bool hasPrimaryContext(c10::DeviceIndex) const override {
    return true;
  }
  c10::DeviceIndex current_device() const override {
    return 0;
  }
  c10::DeviceIndex deviceCount() const override {
    return 1;
  }
  int getNumGPUs() const override {
    return 1;
  }
  bool isPinnedPtr(const void*) const override {
    return false;
  }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    return c10::GetAllocator(c10::DeviceType::CPU);
  }
};

int64_t choose_attention(
    const at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>& mask,
    double dropout, bool, std::optional<double>, bool);

} // namespace
namespace at {
REGISTER_CUDA_HOOKS(CUDAHooks)
namespace native {
REGISTER_CUDA_DISPATCH(_fused_sdp_choice_stub, &choose_attention)
} // namespace native
} // namespace at
namespace {

// Captures

using Graph = std::vector<std::function<void()>>;
std::atomic<Graph*> capture{nullptr};
std::atomic<bool> waiting_is_an_error{false};
thread_local bool inside = false; // of an operator, whose own copies are no copies of the user's

struct Inside {
  bool before = std::exchange(inside, true);
  ~Inside() {
    inside = before;
  }
};

void wait(const char* what) {
  TORCH_CHECK(inside || !capture, "operation not permitted when stream is capturing: ", what);
  TORCH_CHECK(
      inside || !waiting_is_an_error, "called a synchronizing CUDA operation: ", what);
}

void add(std::function<void()> work) {
  if (capture && !inside) {
    capture.load()->push_back(std::move(work));
  }
}

// The same memory as a tensor of the CPU.
at::Tensor on_host(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.is_cpu()) {
    return tensor;
  }
  return at::from_blob(
      tensor.data_ptr(), tensor.sizes(), tensor.strides(), tensor.options().device(at::kCPU));
}

at::Tensor to_gpu(const at::Tensor& tensor) {
  Inside guard;
  return tensor.to(c10::Device(GPU, 0));
}

void host_copy(const at::Tensor& target, const at::Tensor& source) {
  at::AutoDispatchBelowADInplaceOrView guard;
  on_host(target).copy_(on_host(source));
}

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
    std::memcpy(data.get(), storage.data(), storage.nbytes());
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

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  auto last = torch::jit::last(*stack, op.schema().arguments().size());
  torch::jit::Stack arguments(last.begin(), last.end());
  check_devices(op, arguments);
  if (op.schema().name() == "aten::nonzero") {
    wait("nonzero");
  }
  auto results = compute(op, arguments);
  add([op, arguments, results] { replay(op, arguments, results); });
  torch::jit::drop(*stack, arguments.size());
  stack->insert(stack->end(), results.begin(), results.end());
}

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
  capture = new Graph;
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
