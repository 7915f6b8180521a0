// Memory, device, hooks and captures of the stand-in, for `stand_in.cpp`.

#pragma once

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
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
    size_t now = allocated += bytes, before = peak;
    void* data = bytes && now <= limit ? std::malloc(bytes) : nullptr;
    if (bytes && !data) {
      allocated -= bytes;
      TORCH_CHECK_WITH(
          OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", bytes, " bytes.");
    }
    while (before < now && !peak.compare_exchange_weak(before, now)) {
    }
    auto* block = new Block{data, bytes};
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

} // namespace
namespace at {
REGISTER_CUDA_HOOKS(CUDAHooks)
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

} // namespace
