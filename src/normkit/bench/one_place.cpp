// PyTorch's allocator on the CPU while `normkit bench` times: a large tensor lies where the last
// one of its size lay (memory.py tells why). For one PyTorch: c10's allocators have no stable
// interface.
#include <c10/core/CPUAllocator.h>

#include <cstdlib>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

namespace {

// What is smaller stays in a cache wherever the C library puts it; from here on that maps pages
// anew.
constexpr size_t kLarge = size_t(1) << 17;

// In front of each tensor's memory, in a cache line of its own.
struct alignas(64) Header {
  size_t bytes;
};

struct OnePlace final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = bytes ? taken(bytes) : nullptr;
    return {memory, memory, &give_back, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  void open() {
    std::lock_guard guard(lock);
    is_open = true;
  }
  void close() {
    std::lock_guard guard(lock);
    is_open = false;
    for (auto& [bytes, blocks] : free_blocks)
      for (Header* block : blocks) std::free(block);
    free_blocks.clear();
  }

 private:
  std::mutex lock;
  bool is_open = false;
  std::unordered_map<size_t, std::vector<Header*>> free_blocks;

  void* taken(size_t bytes) {
    if (bytes >= kLarge) {
      std::lock_guard guard(lock);
      auto& blocks = free_blocks[bytes];
      if (!blocks.empty()) {
        Header* block = blocks.back();
        blocks.pop_back();
        return block + 1;
      }
    }
    void* block = nullptr;
    if (posix_memalign(&block, alignof(Header), sizeof(Header) + bytes)) throw std::bad_alloc();
    return new (block) Header{bytes} + 1;
  }

  static void give_back(void* memory);
};

// Never destroyed: tensors may outlive everything.
OnePlace& one_place() {
  static auto* allocator = new OnePlace;
  return *allocator;
}

void OnePlace::give_back(void* memory) {
  if (!memory) return;
  Header* block = static_cast<Header*>(memory) - 1;
  if (block->bytes >= kLarge) {
    OnePlace& all = one_place();
    std::lock_guard guard(all.lock);
    if (all.is_open) return all.free_blocks[block->bytes].push_back(block);
  }
  std::free(block);
}

c10::Allocator* before = nullptr;
int depth = 0;  // of calls that ask for it, by one thread

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void normkit_one_place() {
  if (depth++ > 0) return;
  before = c10::GetCPUAllocator();
  one_place().open();
  c10::SetCPUAllocator(&one_place());
}

__attribute__((visibility("default"))) void normkit_any_place() {
  if (--depth > 0) return;
  c10::SetCPUAllocator(before);
  one_place().close();
}
}
