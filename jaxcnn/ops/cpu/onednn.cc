// Convolution and its two gradients by oneDNN, as XLA FFI custom calls for CPU: float32, images NHWC, kernels HWIO.
//
// Three calls, named by their result: y(x, w), x(y, w) and w(x, y). An operand may have a leading axis of K replicas; one without it is shared.
// Three more, without oneDNN, are max-pooling and the linear maps of its derivative (pooling.h). All work is done on one team of threads (team.h).

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <string>
#include <utility>

#include "convolution.h"
#include "pooling.h"
#include "team.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using convolution::Geometry;
using Numbers = ffi::Span<const int64_t>;
using Array = ffi::Buffer<ffi::F32>;
using Bytes = ffi::Buffer<ffi::U8>;

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
  auto one = [&](const convolution::Convolution &conv, int64_t k) {
    convolution::execute(conv, role, static_cast<int>(g.threads), x.data + k * x.stride, w.data + k * w.stride, y.data + k * y.stride);
  };
  try {
    team::owner().run([&] {
      const int threads = team::size(xla_threads);
      const bool apart = replicas >= threads && threads > 1;  // one replica a thread
      g.threads = apart ? 1 : threads;
      omp_set_num_threads(static_cast<int>(g.threads));
      const convolution::Convolution &conv = convolution::cached(g);
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
  return convolve(convolution::kOutput, pool, x, w, *y, strides, padding, dilation, groups);
}

ffi::Error input(ffi::ThreadPool pool, Array y, Array w, ffi::Result<Array> x, Numbers strides, Numbers padding, Numbers dilation,
                 int64_t groups) {
  return convolve(convolution::kInput, pool, *x, w, y, strides, padding, dilation, groups);
}

ffi::Error kernel(ffi::ThreadPool pool, Array x, Array y, ffi::Result<Array> w, Numbers strides, Numbers padding, Numbers dilation,
                  int64_t groups) {
  return convolve(convolution::kKernel, pool, x, *w, y, strides, padding, dilation, groups);
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
    team::owner().run([&] { work(g, team::size(xla_threads)); });
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
    name = convolution::describe(geometry, false)->implementation;
  } catch (const std::exception &) {
    name.clear();
  }
  return name.c_str();
}
