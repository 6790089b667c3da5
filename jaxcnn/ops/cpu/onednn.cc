// Convolution and its two gradients by oneDNN, as XLA FFI custom calls for CPU: float32, images NHWC, kernels HWIO.
//
// Three calls, named by their result: y(x, w), x(y, w) and w(x, y). An operand may have a leading axis of K replicas; one without it is shared.
// Three more, without oneDNN, are max-pooling and the linear maps of its derivative (pooling.h).
//
// Threads. libgomp gives each thread that starts a parallel region a team of its own, so calls from all of XLA's threads would end in
// n * n threads. All work is therefore handed to one thread, the owner of the only team, one call at a time; callers sleep meanwhile. Nothing
// here waits for XLA's threads, so callers cannot block each other for ever, and the number of threads of a call, hence its
// rounding, never depends on what else is running. The owner also needs no locks for the cache of primitives and for scratch memory.

#include <omp.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include "few_channels.h"
#include "lanes.h"
#include "oneapi/dnnl/dnnl.hpp"
#include "pooling.h"
#include "winograd.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using lanes::Scratch;
using Tag = memory::format_tag;
using Numbers = ffi::Span<const int64_t>;
using Array = ffi::Buffer<ffi::F32>;
using Bytes = ffi::Buffer<ffi::U8>;

constexpr auto kFloat = memory::data_type::f32;
constexpr size_t kCachedPrimitives = 1024;  // ResNet-50 needs about 70; a program with ever new shapes must not grow for ever

enum Role : int64_t { kOutput, kInput, kKernel };

// Objects that live as long as the process are never destroyed: at exit the owner thread may still be alive.
dnnl::engine &cpu() {
  static auto *engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

// ---- the thread that owns the OpenMP team --------------------------------------------------------------------------------------

class Owner {
 public:
  Owner() {
    std::thread([this] { serve(); }).detach();
  }

  // Run `work` on the owner thread and wait for it; an exception is passed on.
  void run(const std::function<void()> &work) {
    std::lock_guard<std::mutex> one_call(call_);
    std::unique_lock<std::mutex> lock(mutex_);
    work_ = &work;
    changed_.notify_all();
    changed_.wait(lock, [this] { return work_ == nullptr; });
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return work_ != nullptr; });
      try {
        (*work_)();
      } catch (...) {
        error_ = std::current_exception();
      }
      work_ = nullptr;
      changed_.notify_all();
    }
  }

  std::mutex call_, mutex_;
  std::condition_variable changed_;
  const std::function<void()> *work_ = nullptr;
  std::exception_ptr error_;
};

Owner &owner() {
  static auto *owner = new Owner;
  return *owner;
}

// The size of the team for a call: at most XLA's threads, OMP_NUM_THREADS, and the cores this process may use. For the owner thread.
int team(int64_t xla_threads) {
  static const int64_t limit = omp_get_max_threads();
  return static_cast<int>(std::min(limit, xla_threads));
}

// ---- primitives ----------------------------------------------------------------------------------------------------------------

// All that determines a primitive: two of them are equal if these numbers are.
struct Geometry {
  int64_t role, threads, batch, height, width, channels, out_height, out_width, features, window_height, window_width;
  int64_t stride[2], padding[4], dilation[2], groups;

  using Key = std::array<int64_t, 20>;
  Key key() const {
    return {role,         threads,   batch,     height,     width,      channels,   out_height, out_width,   features,    window_height,
            window_width, stride[0], stride[1], padding[0], padding[1], padding[2], padding[3], dilation[0], dilation[1], groups};
  }
};

struct Convolution {
  dnnl::primitive primitive, reorder;  // reorder: kernel from HWIO to the layout that the primitive wants, or back for its gradient
  memory::desc x, y, w, blocked;
  size_t scratch = 0;
  std::string implementation;
  std::unique_ptr<winograd::Convolution> winograd;  // in place of all of the above
  std::unique_ptr<few_channels::Geometry> few_channels;  // likewise
};

// True where sixteen images at once are faster than the channels of one: these are few in the result, and its block fits a cache.
bool suits_few_channels(const Geometry &g) {
  const int64_t results = g.role == kOutput ? g.features : g.channels;
  const bool unit = g.stride[0] == 1 && g.stride[1] == 1;
  const bool plain = g.groups == 1 && g.dilation[0] == 1 && g.dilation[1] == 1 && (g.role == kOutput || (g.role == kInput && unit));
  const bool inside = g.padding[0] < g.window_height && g.padding[2] < g.window_width;
  return results < winograd::kLanes && plain && inside && lanes::filled(g.batch, g.threads);
}

std::unique_ptr<few_channels::Geometry> describe_few_channels(const Geometry &g) {
  return std::make_unique<few_channels::Geometry>(
      few_channels::Geometry{g.batch, g.height, g.width, g.channels, g.out_height, g.out_width, g.features, {g.window_height, g.window_width},
                             {g.stride[0], g.stride[1]}, {g.padding[0], g.padding[2]}});
}

// True where Winograd's algorithm computes what the geometry asks for, in less time. Both costs are in multiplications; what the transformations
// cost was fitted to times of 27 shapes on two cores (docs/performance.md).
bool suits_winograd(const Geometry &g) {
  const bool square = g.window_height == 3 && g.window_width == 3 && g.stride[0] == 1 && g.stride[1] == 1 && g.dilation[0] == 1 && g.dilation[1] == 1;
  const bool padded = std::all_of(g.padding, g.padding + 4, [](int64_t n) { return n <= 2; });
  const bool whole = g.groups == 1 && g.channels % winograd::kLanes == 0 && g.features % winograd::kLanes == 0;
  if (!square || !padded || !whole) return false;
  const int64_t height = g.role == kInput ? g.height : g.out_height, width = g.role == kInput ? g.width : g.out_width;
  const double pixels = g.batch * height * width, tiles = g.batch * ((height + 1) / 2) * ((width + 1) / 2);
  const double kernels = g.channels * g.features, each_kernel = g.role == kKernel ? 50 * g.threads : 100;
  return 16 * kernels * (tiles + each_kernel) + 300 * tiles * (g.channels + g.features) < 0.9 * 9 * kernels * (pixels + 70);
}

std::unique_ptr<winograd::Convolution> describe_winograd(const Geometry &g) {
  if (g.role != kInput) {
    const auto role = g.role == kOutput ? winograd::Role::kOutput : winograd::Role::kKernel;
    const int64_t before[2] = {g.padding[0], g.padding[2]};
    return std::make_unique<winograd::Convolution>(cpu(), role, g.batch, g.height, g.width, g.channels, g.out_height, g.out_width, g.features,
                                                   before, g.threads);
  }
  const int64_t before[2] = {2 - g.padding[0], 2 - g.padding[2]};
  return std::make_unique<winograd::Convolution>(cpu(), winograd::Role::kInput, g.batch, g.out_height, g.out_width, g.features, g.height, g.width,
                                                 g.channels, before, g.threads);
}

// `create` says whether the code of the primitive is generated, or only its description is asked for.
std::unique_ptr<Convolution> describe(const Geometry &g, bool create) {
  auto conv = std::make_unique<Convolution>();
  if (suits_few_channels(g)) {
    conv->few_channels = describe_few_channels(g);
    conv->implementation = "images in lanes";
    return conv;
  }
  if (suits_winograd(g)) {
    if (create) conv->winograd = describe_winograd(g);
    conv->implementation = "winograd";
    return conv;
  }
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const auto training = dnnl::prop_kind::forward_training;
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const memory::dims strides{g.stride[0], g.stride[1]}, dilations{g.dilation[0] - 1, g.dilation[1] - 1};
  const memory::dims before{g.padding[0], g.padding[2]}, after{g.padding[1], g.padding[3]};
  conv->x = memory::desc({g.batch, g.channels, g.height, g.width}, kFloat, Tag::nhwc);
  conv->y = memory::desc({g.batch, g.features, g.out_height, g.out_width}, kFloat, Tag::nhwc);
  const int64_t inputs = g.channels / g.groups, outputs = g.features / g.groups;
  memory::desc any;
  if (g.groups == 1) {
    const memory::dims shape{g.features, g.channels, g.window_height, g.window_width};
    any = memory::desc(shape, kFloat, Tag::any);
    conv->w = memory::desc(shape, kFloat, Tag::hwio);
  } else {
    const memory::dims shape{g.groups, outputs, inputs, g.window_height, g.window_width};
    const memory::dims hwio{outputs, 1, g.features, g.window_width * inputs * g.features, inputs * g.features};
    any = memory::desc(shape, kFloat, Tag::any);
    conv->w = memory::desc(shape, kFloat, hwio);
  }
  const dnnl::convolution_forward::primitive_desc forward(cpu(), training, algorithm, conv->x, any, conv->y, strides, dilations, before, after,
                                                          attributes);
  auto finish = [&](const auto &description, const memory::desc &blocked, auto make) {
    conv->blocked = blocked;
    conv->implementation = description.impl_info_str();
    conv->scratch = description.scratchpad_desc().get_size();
    if (create) conv->primitive = make(description);
  };
  if (g.role == kOutput) {
    finish(forward, forward.weights_desc(), [](const auto &d) { return dnnl::convolution_forward(d); });
  } else if (g.role == kInput) {
    const dnnl::convolution_backward_data::primitive_desc backward(cpu(), algorithm, conv->x, any, conv->y, strides, dilations, before, after,
                                                                   forward, attributes);
    finish(backward, backward.weights_desc(), [](const auto &d) { return dnnl::convolution_backward_data(d); });
  } else {
    const dnnl::convolution_backward_weights::primitive_desc backward(cpu(), algorithm, conv->x, any, conv->y, strides, dilations, before,
                                                                      after, forward, attributes);
    finish(backward, backward.diff_weights_desc(), [](const auto &d) { return dnnl::convolution_backward_weights(d); });
  }
  if (create && conv->blocked != conv->w) {
    const bool back = g.role == kKernel;
    const dnnl::reorder::primitive_desc reorder(cpu(), back ? conv->blocked : conv->w, cpu(), back ? conv->w : conv->blocked, attributes);
    conv->scratch = std::max(conv->scratch, reorder.scratchpad_desc().get_size());
    conv->reorder = dnnl::reorder(reorder);
  }
  return conv;
}

// Least recently used primitives are dropped. Called by the owner thread alone.
const Convolution &cached(const Geometry &geometry) {
  using Entry = std::pair<Geometry::Key, std::unique_ptr<Convolution>>;
  static auto &recent = *new std::list<Entry>;
  static auto &index = *new std::map<Geometry::Key, std::list<Entry>::iterator>;
  const auto key = geometry.key();
  if (auto found = index.find(key); found != index.end()) {
    recent.splice(recent.begin(), recent, found->second);
  } else {
    recent.emplace_front(key, describe(geometry, true));
    index[key] = recent.begin();
    if (recent.size() > kCachedPrimitives) {
      index.erase(recent.back().first);
      recent.pop_back();
    }
  }
  return *recent.front().second;
}

void execute(const Convolution &conv, int64_t role, int threads, float *x, float *w, float *y) {
  if (conv.few_channels) {
    if (role == kOutput) return few_channels::output(*conv.few_channels, threads, x, w, y);
    return few_channels::input(*conv.few_channels, threads, y, w, x);
  }
  if (conv.winograd) {
    if (role == kOutput) return conv.winograd->convolve(x, w, y);
    if (role == kInput) return conv.winograd->convolve(y, w, x);
    return conv.winograd->kernel(x, y, w);
  }
  static thread_local Scratch kernel, workspace;
  dnnl::stream stream(cpu());
  auto wrap = [](const memory::desc &description, void *data) { return memory(description, cpu(), data); };
  const bool reorders = static_cast<bool>(conv.reorder);
  void *blocked = reorders ? kernel.get(conv.blocked.get_size()) : w;
  const memory plain_w = wrap(conv.w, w), blocked_w = wrap(conv.blocked, blocked);
  const memory::desc bytes({static_cast<int64_t>(conv.scratch)}, memory::data_type::u8, Tag::a);
  const memory scratch = wrap(bytes, workspace.get(std::max<size_t>(conv.scratch, 1)));
  if (reorders && role != kKernel) {
    conv.reorder.execute(stream, {{DNNL_ARG_FROM, plain_w}, {DNNL_ARG_TO, blocked_w}, {DNNL_ARG_SCRATCHPAD, scratch}});
  }
  const int x_argument = role == kInput ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC;
  const int w_argument = role == kKernel ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS;
  const int y_argument = role == kOutput ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST;
  conv.primitive.execute(
      stream, {{x_argument, wrap(conv.x, x)}, {w_argument, blocked_w}, {y_argument, wrap(conv.y, y)}, {DNNL_ARG_SCRATCHPAD, scratch}});
  if (reorders && role == kKernel) {
    conv.reorder.execute(stream, {{DNNL_ARG_FROM, blocked_w}, {DNNL_ARG_TO, plain_w}, {DNNL_ARG_SCRATCHPAD, scratch}});
  }
  stream.wait();
}

// ---- the calls -----------------------------------------------------------------------------------------------------------------

// An operand as K replicas of a rank-4 array; the stride is 0 where all replicas share one.
struct Operand {
  float *data;
  Numbers shape;  // without the replica axis
  int64_t replicas, stride;

  explicit Operand(Array &buffer) : data(buffer.typed_data()), shape(buffer.dimensions()), replicas(1), stride(0) {
    if (shape.size() == 5) {
      replicas = shape[0];
      shape = Numbers(shape.begin() + 1, 4);
      stride = static_cast<int64_t>(buffer.element_count()) / replicas;
    }
  }
};

ffi::Error convolve(int64_t role, ffi::ThreadPool pool, Array x_buffer, Array w_buffer, Array y_buffer, Numbers strides, Numbers padding,
                    Numbers dilation, int64_t groups) {
  const Operand x(x_buffer), w(w_buffer), y(y_buffer);
  if (x.shape.size() != 4 || w.shape.size() != 4 || y.shape.size() != 4 || strides.size() != 2 || padding.size() != 4 || dilation.size() != 2) {
    return ffi::Error::InvalidArgument("jaxcnn_onednn: operands must have rank 4, or 5 with replicas");
  }
  const int64_t replicas = std::max({x.replicas, w.replicas, y.replicas});
  for (const Operand *operand : {&x, &w, &y}) {
    if (operand->stride != 0 && operand->replicas != replicas) return ffi::Error::InvalidArgument("jaxcnn_onednn: replica axes differ");
  }
  Geometry g{};
  g.role = role;
  g.batch = x.shape[0], g.height = x.shape[1], g.width = x.shape[2], g.channels = x.shape[3];
  g.out_height = y.shape[1], g.out_width = y.shape[2], g.features = y.shape[3];
  g.window_height = w.shape[0], g.window_width = w.shape[1], g.groups = groups;
  std::copy(strides.begin(), strides.end(), g.stride);
  std::copy(padding.begin(), padding.end(), g.padding);
  std::copy(dilation.begin(), dilation.end(), g.dilation);
  const int64_t xla_threads = std::max<int64_t>(1, pool.num_threads());
  auto one = [&](const Convolution &conv, int64_t k) {
    execute(conv, role, static_cast<int>(g.threads), x.data + k * x.stride, w.data + k * w.stride, y.data + k * y.stride);
  };
  try {
    owner().run([&] {
      const int threads = team(xla_threads);
      const bool apart = replicas >= threads && threads > 1;  // one replica a thread
      g.threads = apart ? 1 : threads;
      omp_set_num_threads(static_cast<int>(g.threads));
      const Convolution &conv = cached(g);
      if (!apart) {
        for (int64_t k = 0; k < replicas; ++k) one(conv, k);
        return;
      }
      std::exception_ptr error;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
      for (int64_t k = 0; k < replicas; ++k) {
        try {
          one(conv, k);
        } catch (...) {
#pragma omp critical
          error = std::current_exception();
        }
      }
      if (error) std::rethrow_exception(error);
    });
  } catch (const std::exception &error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  }
  return ffi::Error::Success();
}

ffi::Error output(ffi::ThreadPool pool, Array x, Array w, ffi::Result<Array> y, Numbers strides, Numbers padding, Numbers dilation,
                  int64_t groups) {
  return convolve(kOutput, pool, x, w, *y, strides, padding, dilation, groups);
}

ffi::Error input(ffi::ThreadPool pool, Array y, Array w, ffi::Result<Array> x, Numbers strides, Numbers padding, Numbers dilation,
                 int64_t groups) {
  return convolve(kInput, pool, *x, w, y, strides, padding, dilation, groups);
}

ffi::Error kernel(ffi::ThreadPool pool, Array x, Array y, ffi::Result<Array> w, Numbers strides, Numbers padding, Numbers dilation,
                  int64_t groups) {
  return convolve(kKernel, pool, x, *w, y, strides, padding, dilation, groups);
}

// Run work(geometry, threads) on the owner's team.
template <typename Work>
ffi::Error pool_windows(ffi::ThreadPool pool, Numbers image, Numbers windows, Numbers window, Numbers strides, Numbers before, const Work &work) {
  if (image.size() != 4 || windows.size() != 4 || window.size() != 2 || strides.size() != 2 || before.size() != 2) {
    return ffi::Error::InvalidArgument("jaxcnn_pool: operands must have rank 4");
  }
  const pooling::Geometry g{image[0],
                            image[3],
                            {image[1], windows[1], window[0], strides[0], before[0]},
                            {image[2], windows[2], window[1], strides[1], before[1]}};
  const int64_t xla_threads = std::max<int64_t>(1, pool.num_threads());
  try {
    owner().run([&] { work(g, team(xla_threads)); });
  } catch (const std::exception &error) {
    return ffi::Error::Internal(std::string("jaxcnn_pool: ") + error.what());
  }
  return ffi::Error::Success();
}

ffi::Error pool_max(ffi::ThreadPool pool, Array x, ffi::Result<Array> y, ffi::Result<Bytes> first, Numbers window, Numbers strides,
                    Numbers before) {
  return pool_windows(pool, x.dimensions(), y->dimensions(), window, strides, before, [&](const pooling::Geometry &g, int threads) {
    pooling::max(g, threads, x.typed_data(), y->typed_data(), first->typed_data());
  });
}

ffi::Error pool_take(ffi::ThreadPool pool, Array x, Bytes first, ffi::Result<Array> y, Numbers window, Numbers strides, Numbers before) {
  return pool_windows(pool, x.dimensions(), y->dimensions(), window, strides, before, [&](const pooling::Geometry &g, int threads) {
    pooling::take(g, threads, x.typed_data(), first.typed_data(), y->typed_data());
  });
}

ffi::Error pool_put(ffi::ThreadPool pool, Array y, Bytes first, ffi::Result<Array> x, Numbers window, Numbers strides, Numbers before) {
  return pool_windows(pool, x->dimensions(), y.dimensions(), window, strides, before, [&](const pooling::Geometry &g, int threads) {
    pooling::put(g, threads, y.typed_data(), first.typed_data(), x->typed_data());
  });
}

// Attributes common to the three; `binding` has the operands and results.
template <typename Binding>
auto with_windows(Binding binding) {
  return std::move(binding).template Attr<Numbers>("window").template Attr<Numbers>("strides").template Attr<Numbers>("before");
}

auto pool_binding() { return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Array>(); }

auto binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Array>()
      .Arg<Array>()
      .Ret<Array>()
      .Attr<Numbers>("strides")
      .Attr<Numbers>("padding")
      .Attr<Numbers>("dilation")
      .Attr<int64_t>("groups");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcnn_onednn_y, output, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcnn_onednn_x, input, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcnn_onednn_w, kernel, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcnn_pool_max, pool_max, with_windows(pool_binding().Ret<Array>().Ret<Bytes>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcnn_pool_take, pool_take, with_windows(pool_binding().Arg<Bytes>().Ret<Array>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcnn_pool_put, pool_put, with_windows(pool_binding().Arg<Bytes>().Ret<Array>()));

// Name of the implementation that oneDNN chooses ("jit:avx512_core", "ref:any", …), or an empty string where it has none. `numbers` are
// those of Geometry in its order; the number of threads is this process's own. The string is valid until the next call of the same thread.
extern "C" __attribute__((visibility("default"))) const char *jaxcnn_onednn_implementation(const int64_t *numbers) {
  static thread_local std::string name;
  static_assert(sizeof(Geometry) == 20 * sizeof(int64_t), "Geometry is an array of numbers");
  Geometry geometry;
  std::copy(numbers, numbers + 20, reinterpret_cast<int64_t *>(&geometry));
  geometry.threads = omp_get_max_threads();
  try {
    name = describe(geometry, false)->implementation;
  } catch (const std::exception &) {
    name.clear();
  }
  return name.c_str();
}
