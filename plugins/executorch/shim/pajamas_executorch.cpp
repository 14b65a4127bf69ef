/* ExecuTorch's C++ runtime behind the C interface of `pajamas_executorch.h`. */

#include "pajamas_executorch.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <executorch/extension/data_loader/mmap_data_loader.h>
#include <executorch/extension/memory_allocator/malloc_memory_allocator.h>
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/exec_aten/util/dim_order_util.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

namespace et = executorch::runtime;
using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::aten::TensorImpl;
using executorch::extension::MallocMemoryAllocator;
using executorch::extension::MmapDataLoader;

/* The wheel has the library of the thread pool, but no header of it. */
namespace executorch::extension::threadpool {
class ThreadPool {
public:
  bool _unsafe_reset_threadpool(uint32_t count);
};
ThreadPool *get_threadpool();
} // namespace executorch::extension::threadpool

namespace {

/* XNNPACK's kernels read up to 128 bytes beyond the end of a tensor. */
constexpr size_t PADDING = 128;
constexpr size_t ALIGNMENT = 64;

pajamas_et_log log_sink = nullptr;

void emit(et_timestamp_t, et_pal_log_level_t level, const char *file, const char *, size_t line, const char *message,
    size_t len) {
  log_sink(static_cast<char>(level), file, line, message, len);
}

uint32_t code(et::Error error) { return static_cast<uint32_t>(error); }

/* Runs `body`; an exception of the standard library becomes a status. */
template <typename Body> uint32_t guarded(Body body) noexcept {
  try {
    return code(body());
  } catch (const std::bad_alloc &) {
    return code(et::Error::MemoryAllocationFailed);
  } catch (...) {
    return code(et::Error::Internal);
  }
}

/* The allocator of the runtime's own structures. Zeroed, because a method whose load fails half-way is destroyed with parts
 * of it never written. */
class ZeroedAllocator : public MallocMemoryAllocator {
public:
  void *allocate(size_t size, size_t alignment = kDefaultAlignment) override {
    void *memory = MallocMemoryAllocator::allocate(size, alignment);
    if (memory != nullptr) {
      std::memset(memory, 0, size);
    }
    return memory;
  }
};

struct Free {
  void operator()(void *memory) const { std::free(memory); }
};

/* Zeroed memory, with room to align it and to read beyond its end. Pages that nobody touches cost nothing. */
struct Buffer {
  std::unique_ptr<void, Free> memory;
  size_t len = 0;

  bool allocate(size_t wanted) {
    if (wanted > SIZE_MAX - PADDING - ALIGNMENT) {
      return false;
    }
    memory.reset(std::calloc(1, wanted + PADDING + ALIGNMENT));
    len = wanted;
    return memory != nullptr;
  }

  et::Span<uint8_t> span() const {
    auto address = reinterpret_cast<uintptr_t>(memory.get());
    auto aligned = (address + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return {reinterpret_cast<uint8_t *>(aligned), len};
  }
};

} // namespace

struct pajamas_et_program {
  /* The loader keeps a pointer to it. */
  std::string file;
  std::optional<MmapDataLoader> loader;
  std::optional<et::Program> program;
};

/* Members are destroyed from the last to the first: the method before what it points to. */
struct pajamas_et_method {
  ZeroedAllocator method_allocator;
  MallocMemoryAllocator temporary_allocator;
  std::vector<Buffer> buffers;
  std::vector<et::Span<uint8_t>> spans;
  std::optional<et::HierarchicalAllocator> planned;
  std::optional<et::MemoryManager> memory;
  std::optional<et::Method> method;
};

uint32_t pajamas_et_interface(void) { return PAJAMAS_ET_INTERFACE; }

const char *pajamas_et_version(void) { return PAJAMAS_ET_VERSION; }

uint32_t pajamas_et_start(pajamas_et_log log) {
  return guarded([&] {
    log_sink = log;
    /* The runtime keeps the first table that is registered. */
    bool is_registered = et::register_pal(et::PalImpl::create(emit, __FILE__));
    et::runtime_init();
    return is_registered ? et::Error::Ok : et::Error::AlreadyLoaded;
  });
}

const char *pajamas_et_status_name(uint32_t status) {
  const std::string_view prefix = "Error::";
  const char *name = et::to_string(static_cast<et::Error>(status));
  return std::string_view(name).substr(0, prefix.size()) == prefix ? name + prefix.size() : name;
}

size_t pajamas_et_backends(void) { return et::get_num_registered_backends(); }

const char *pajamas_et_backend(size_t index) {
  if (index >= et::get_num_registered_backends()) {
    return nullptr;
  }
  auto name = et::get_backend_name(index);
  return name.ok() ? *name : nullptr;
}

uint32_t pajamas_et_set_threads(uint32_t threads) {
  return guarded([&] {
    auto *pool = executorch::extension::threadpool::get_threadpool();
    bool is_set = pool != nullptr && pool->_unsafe_reset_threadpool(threads);
    return is_set ? et::Error::Ok : et::Error::OutOfResources;
  });
}

uint32_t pajamas_et_program_open(const char *file, pajamas_et_program **out) {
  return guarded([&] {
    auto opened = std::make_unique<pajamas_et_program>();
    opened->file = file;
    /* Locked pages could not be reclaimed, and most users may lock few. */
    auto loader = MmapDataLoader::from(opened->file.c_str(), MmapDataLoader::MlockConfig::NoMlock);
    if (!loader.ok()) {
      return loader.error();
    }
    opened->loader.emplace(std::move(*loader));
    auto program = et::Program::load(&*opened->loader, et::Program::Verification::InternalConsistency);
    if (!program.ok()) {
      return program.error();
    }
    opened->program.emplace(std::move(*program));
    *out = opened.release();
    return et::Error::Ok;
  });
}

void pajamas_et_program_close(pajamas_et_program *program) { delete program; }

static et::Error plan_memory(const et::MethodMeta &meta, pajamas_et_method &method) {
  for (size_t index = 0; index < meta.num_memory_planned_buffers(); index++) {
    auto len = meta.memory_planned_buffer_size(index);
    if (!len.ok()) {
      return len.error();
    }
    if (*len < 0) {
      return et::Error::InvalidProgram;
    }
    Buffer buffer;
    if (!buffer.allocate(static_cast<size_t>(*len))) {
      return et::Error::MemoryAllocationFailed;
    }
    method.buffers.push_back(std::move(buffer));
  }
  for (const auto &buffer : method.buffers) {
    method.spans.push_back(buffer.span());
  }
  method.planned.emplace(et::Span<et::Span<uint8_t>>(method.spans.data(), method.spans.size()));
  return et::Error::Ok;
}

uint32_t pajamas_et_method_open(const pajamas_et_program *program, const char *name, pajamas_et_method **out) {
  return guarded([&] {
    auto meta = program->program->method_meta(name);
    if (!meta.ok()) {
      return meta.error();
    }
    auto opened = std::make_unique<pajamas_et_method>();
    auto planned = plan_memory(*meta, *opened);
    if (planned != et::Error::Ok) {
      return planned;
    }
    opened->memory.emplace(&opened->method_allocator, &*opened->planned, &opened->temporary_allocator);
    auto method = program->program->load_method(name, &*opened->memory);
    if (!method.ok()) {
      return method.error();
    }
    opened->method.emplace(std::move(*method));
    *out = opened.release();
    return et::Error::Ok;
  });
}

void pajamas_et_method_close(pajamas_et_method *method) { delete method; }

uint32_t pajamas_et_method_set_input(pajamas_et_method *method, size_t index, const pajamas_et_tensor *tensor) {
  return guarded([&] {
    if (tensor->dims > PAJAMAS_ET_DIMS_MAX || index >= method->method->inputs_size()) {
      return et::Error::InvalidArgument;
    }
    int32_t sizes[PAJAMAS_ET_DIMS_MAX];
    uint8_t dim_order[PAJAMAS_ET_DIMS_MAX];
    int32_t strides[PAJAMAS_ET_DIMS_MAX];
    std::copy_n(tensor->sizes, tensor->dims, sizes);
    std::copy_n(tensor->dim_order, tensor->dims, dim_order);
    auto strided = et::dim_order_to_stride(sizes, dim_order, tensor->dims, strides);
    if (strided != et::Error::Ok) {
      return strided;
    }
    /* The method copies the description, and the elements too if its plan has a place for them. */
    TensorImpl description(static_cast<ScalarType>(tensor->scalar_type), static_cast<ssize_t>(tensor->dims), sizes,
        const_cast<void *>(tensor->data), dim_order, strides);
    return method->method->set_input(et::EValue(Tensor(&description)), index);
  });
}

uint32_t pajamas_et_method_run(pajamas_et_method *method) {
  return guarded([&] { return method->method->execute(); });
}

uint32_t pajamas_et_method_output(const pajamas_et_method *method, size_t index, pajamas_et_tensor *out) {
  return guarded([&] {
    if (index >= method->method->outputs_size()) {
      return et::Error::InvalidArgument;
    }
    const et::EValue &value = method->method->get_output(index);
    if (!value.isTensor()) {
      return et::Error::InvalidType;
    }
    const Tensor &tensor = value.toTensor();
    if (tensor.dim() > PAJAMAS_ET_DIMS_MAX) {
      return et::Error::NotSupported;
    }
    out->scalar_type = static_cast<int8_t>(tensor.scalar_type());
    out->dims = static_cast<uint32_t>(tensor.dim());
    std::copy_n(tensor.sizes().data(), out->dims, out->sizes);
    std::copy_n(tensor.dim_order().data(), out->dims, out->dim_order);
    out->data = tensor.const_data_ptr();
    out->bytes = tensor.nbytes();
    return et::Error::Ok;
  });
}
