// Winograd's minimal filtering F(2x2, 3x3) for 3x3 convolutions of stride 1, float32: 16 multiplications where 36 were.
//
// Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.1: with patches d of 4x4 inputs and tiles of 2x2 outputs,
//
//   y = A' [ (G w G') * (B' d B) ] A,        d(loss)/dw = G' [ (A dy A') * (B' d B) ] G,
//
// where * multiplies entry by entry, summed over channels (or, for w, over patches): 16 matrix products, which oneDNN computes. The gradient of
// the input is a convolution with the turned kernel. The transformations are sums and halves, so that rounding stays near the direct way's.
//
// Tiles are worked on in blocks whose transforms stay in the cache of the core at work. Everything runs on the caller's OpenMP team.

#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <vector>

#include "lanes.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace winograd {

using dnnl::memory;
using lanes::Scratch;

// Sixteen channels at once. Compilers split it into what the processor has.
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
constexpr int64_t kLanes = 16, kPlaces = 16;

inline Lanes load(const float *data) { return *reinterpret_cast<const Lanes *>(data); }
inline void store(float *data, const Lanes &lanes) { *reinterpret_cast<Lanes *>(data) = lanes; }

// B' d B of the patch whose sixteen rows of channels start at patch[i]; place i of the result goes to out + i * stride. [channels] each
JAXCNN_EVERY_TARGET void transform_patch(const float *const *patch, float *out, int64_t stride, int64_t channels) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    Lanes t[4][4];
    for (int j = 0; j < 4; ++j) {
      const Lanes d0 = load(patch[j] + c), d1 = load(patch[4 + j] + c), d2 = load(patch[8 + j] + c), d3 = load(patch[12 + j] + c);
      t[0][j] = d0 - d2, t[1][j] = d1 + d2, t[2][j] = d2 - d1, t[3][j] = d1 - d3;
    }
    for (int i = 0; i < 4; ++i) {
      float *row = out + 4 * i * stride + c;
      store(row, t[i][0] - t[i][2]), store(row + stride, t[i][1] + t[i][2]);
      store(row + 2 * stride, t[i][2] - t[i][1]), store(row + 3 * stride, t[i][1] - t[i][3]);
    }
  }
}

// A' m A: the four outputs, [channels] each, go to tile[i]; a null pointer lies outside the image.
JAXCNN_EVERY_TARGET void transform_back(const float *m, int64_t stride, float *const *tile, int64_t channels) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    Lanes t[2][4];
    for (int j = 0; j < 4; ++j) {
      const float *column = m + j * stride + c;
      const Lanes m0 = load(column), m1 = load(column + 4 * stride), m2 = load(column + 8 * stride), m3 = load(column + 12 * stride);
      t[0][j] = m0 + m1 + m2, t[1][j] = m1 - m2 - m3;
    }
    for (int i = 0; i < 2; ++i) {
      if (tile[2 * i]) store(tile[2 * i] + c, t[i][0] + t[i][1] + t[i][2]);
      if (tile[2 * i + 1]) store(tile[2 * i + 1] + c, t[i][1] - t[i][2] - t[i][3]);
    }
  }
}

// A dy A' of the 2x2 tile of gradients, the transposed of the above.
JAXCNN_EVERY_TARGET void transform_gradient(const float *const *tile, float *out, int64_t stride, int64_t channels) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    Lanes t[4][2];
    for (int j = 0; j < 2; ++j) {
      const Lanes g0 = load(tile[j] + c), g1 = load(tile[2 + j] + c);
      t[0][j] = g0, t[1][j] = g0 + g1, t[2][j] = g0 - g1, t[3][j] = -g1;
    }
    for (int i = 0; i < 4; ++i) {
      float *row = out + 4 * i * stride + c;
      store(row, t[i][0]), store(row + stride, t[i][0] + t[i][1]);
      store(row + 2 * stride, t[i][0] - t[i][1]), store(row + 3 * stride, -t[i][1]);
    }
  }
}

// G w G' of `count` kernels that lie beside each other: entry (i, j) of them at w + (3 i + j) * count, or turned by 180 degrees.
JAXCNN_EVERY_TARGET void transform_kernels(const float *w, float *out, int64_t count, bool turned, int64_t begin, int64_t end) {
  for (int64_t k = begin; k < end; k += kLanes) {
    Lanes t[4][3];
    for (int j = 0; j < 3; ++j) {
      Lanes g[3];
      for (int i = 0; i < 3; ++i) g[i] = load(w + (turned ? 8 - 3 * i - j : 3 * i + j) * count + k);
      const Lanes even = 0.5f * (g[0] + g[2]), odd = 0.5f * g[1];
      t[0][j] = g[0], t[1][j] = even + odd, t[2][j] = even - odd, t[3][j] = g[2];
    }
    for (int i = 0; i < 4; ++i) {
      float *row = out + 4 * i * count + k;
      const Lanes even = 0.5f * (t[i][0] + t[i][2]), odd = 0.5f * t[i][1];
      store(row, t[i][0]), store(row + count, even + odd), store(row + 2 * count, even - odd), store(row + 3 * count, t[i][2]);
    }
  }
}

// G' u G: the gradient of `count` kernels from that of their transforms, which is the sum of `parts` arrays.
JAXCNN_EVERY_TARGET void transform_kernels_back(float *const *u, int64_t parts, float *w, int64_t count, int64_t begin, int64_t end) {
  for (int64_t k = begin; k < end; k += kLanes) {
    Lanes t[3][4];
    for (int j = 0; j < 4; ++j) {
      Lanes g[4];
      for (int i = 0; i < 4; ++i) {
        const int64_t at = (4 * i + j) * count + k;
        g[i] = load(u[0] + at);
        for (int64_t part = 1; part < parts; ++part) g[i] += load(u[part] + at);
      }
      const Lanes both = 0.5f * (g[1] + g[2]);
      t[0][j] = g[0] + both, t[1][j] = 0.5f * (g[1] - g[2]), t[2][j] = both + g[3];
    }
    for (int i = 0; i < 3; ++i) {
      float *row = w + 3 * i * count + k;
      const Lanes both = 0.5f * (t[i][1] + t[i][2]);
      store(row, t[i][0] + both), store(row + count, 0.5f * (t[i][1] - t[i][2])), store(row + 2 * count, both + t[i][3]);
    }
  }
}

enum class Role { kOutput, kInput, kKernel };

// One convolution of an image [batch, height, width, from] to [batch, out_height, out_width, to], zeros around it: `before` rows and columns
// above and left of it. For Role::kInput "image" is y's gradient and the result x's, so the caller exchanges them, and `before` is 2 - padding.
class Convolution {
 public:
  Convolution(const dnnl::engine &engine, Role role, int64_t batch, int64_t height, int64_t width, int64_t from, int64_t out_height,
              int64_t out_width, int64_t to, const int64_t *before, int64_t threads)
      : engine_(engine), role_(role), height_(height), width_(width), from_(from), out_height_(out_height), out_width_(out_width),
        to_(to), above_(before[0]), left_(before[1]), threads_(threads) {
    tile_rows_ = (out_height + 1) / 2, tile_columns_ = (out_width + 1) / 2, tiles_ = batch * tile_rows_ * tile_columns_;
    const int64_t most = std::clamp<int64_t>(kCache / (kPlaces * (from + to) * 4), 64, 256);
    blocks_ = threads * ((tiles_ + threads * most - 1) / (threads * most));
    rows_ = (tiles_ + blocks_ - 1) / blocks_ | 1;  // odd, so that the sixteen places do not fall into the same set of the cache
    blocks_ = (tiles_ + rows_ - 1) / rows_;
    const auto type = memory::data_type::f32;
    const auto plain = memory::format_tag::abc;
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const int outer = omp_get_max_threads();
    omp_set_num_threads(1);  // each thread of the team computes its own products
    if (role == Role::kKernel) {
      dnnl::post_ops add;
      add.append_sum(1.0f);
      attributes.set_post_ops(add);
      source_ = memory::desc({kPlaces, from, rows_}, type, memory::format_tag::acb);
      weights_ = memory::desc({kPlaces, rows_, to}, type, plain);
      result_ = memory::desc({kPlaces, from, to}, type, plain);
    } else {
      source_ = memory::desc({kPlaces, rows_, from}, type, plain);
      weights_ = memory::desc({kPlaces, from, to}, type, memory::format_tag::any);
      result_ = memory::desc({kPlaces, rows_, to}, type, plain);
    }
    const dnnl::matmul::primitive_desc product(engine, source_, weights_, result_, attributes);
    product_ = dnnl::matmul(product);
    omp_set_num_threads(outer);
    weights_ = product.weights_desc();
    scratch_ = std::max<int64_t>(product.scratchpad_desc().get_size(), 1);
    if (role == Role::kKernel) return;
    // Transformed kernels lie as [places, inputs of y, outputs of y]; for the input's gradient that is the transposed.
    const bool turned = role == Role::kInput;
    transformed_ = memory::desc({kPlaces, from, to}, type, turned ? memory::format_tag::acb : plain);
    dnnl::primitive_attr plain_attributes;
    plain_attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const dnnl::reorder::primitive_desc reorder(engine, transformed_, engine, weights_, plain_attributes);
    reorder_ = dnnl::reorder(reorder);
    reorder_scratch_ = std::max<int64_t>(reorder.scratchpad_desc().get_size(), 1);
  }

  // y(x, w) or x(y, w): `image` and `w` are read, `result` written.
  void convolve(const float *image, const float *w, float *result) const {
    static thread_local Scratch transformed_memory, kernel_memory, reorder_memory, zero_memory;
    const int64_t count = from_ * to_;
    float *transformed = transformed_memory.floats(kPlaces * count);
    const bool turned = role_ == Role::kInput;
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (int64_t part = 0; part < threads_; ++part) {
      const int64_t groups = count / kLanes, begin = groups * part / threads_, end = groups * (part + 1) / threads_;
      transform_kernels(w, transformed, count, turned, begin * kLanes, end * kLanes);
    }
    void *kernels = kernel_memory.get(weights_.get_size());
    {
      dnnl::stream stream(engine_);
      const memory::desc bytes({reorder_scratch_}, memory::data_type::u8, memory::format_tag::a);
      reorder_.execute(stream, {{DNNL_ARG_FROM, memory(transformed_, engine_, transformed)}, {DNNL_ARG_TO, memory(weights_, engine_, kernels)},
                                {DNNL_ARG_SCRATCHPAD, memory(bytes, engine_, reorder_memory.get(reorder_scratch_))}});
    }
    const float *zeros = zeroed(zero_memory, from_);
    each_block([&](int64_t first, int64_t, float *patches, float *products, void *scratch, int64_t) {
      transform_patches(image, zeros, first, patches);
      multiply(patches, kernels, products, scratch);
      for (int64_t row = 0; row < rows_ && first + row < tiles_; ++row) {
        float *tile[4];
        place_tile(result, first + row, tile);
        transform_back(products + row * to_, rows_ * to_, tile, to_);
      }
    });
  }

  // w(x, y): `image` and the gradient `y` are read, the kernel's gradient `w` is written.
  void kernel(const float *image, const float *y, float *w) const {
    static thread_local Scratch zero_memory, sum_memory;
    const float *zeros = zeroed(zero_memory, std::max(from_, to_));
    const int64_t count = from_ * to_, parts = std::min(threads_, blocks_);
    float *sums = sum_memory.floats(parts * kPlaces * count);
    std::vector<float *> sum(parts);
    for (int64_t part = 0; part < parts; ++part) sum[part] = sums + part * kPlaces * count;
    each_block([&](int64_t first, int64_t part, float *patches, float *gradients, void *scratch, int64_t done) {
      if (done == 0) std::memset(sum[part], 0, kPlaces * count * sizeof(float));
      transform_patches(image, zeros, first, patches);
      for (int64_t row = 0; row < rows_; ++row) {
        const float *tile[4] = {zeros, zeros, zeros, zeros};
        if (first + row < tiles_) place_tile(y, first + row, tile);
        for (const float *&place : tile) place = place ? place : zeros;
        transform_gradient(tile, gradients + row * to_, rows_ * to_, to_);
      }
      multiply(patches, gradients, sum[part], scratch);
    });
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (int64_t part = 0; part < threads_; ++part) {
      const int64_t groups = count / kLanes, begin = groups * part / threads_, end = groups * (part + 1) / threads_;
      transform_kernels_back(sum.data(), parts, w, count, begin * kLanes, end * kLanes);
    }
  }

 private:
  static constexpr int64_t kCache = 768 << 10;  // bytes of transforms that one core works on; second-level caches hold one megabyte and more

  static const float *zeroed(Scratch &memory, int64_t count) {
    float *data = memory.floats(count);
    std::fill(data, data + count, 0.0f);
    return data;
  }

  // work(first tile, part, patches [places, rows, from], products [places, rows, to], scratch, blocks that the part has done), by `threads`
  // parts of consecutive blocks: which part computes what, and so the rounding, does not depend on who is faster.
  template <typename Work>
  void each_block(const Work &work) const {
    const int64_t parts = std::min(threads_, blocks_);
    std::exception_ptr error;
#pragma omp parallel for num_threads(threads_) schedule(static, 1)
    for (int64_t part = 0; part < parts; ++part) {
      static thread_local Scratch patch_memory, product_memory, scratch_memory;
      try {
        float *patches = patch_memory.floats(kPlaces * rows_ * from_), *products = product_memory.floats(kPlaces * rows_ * to_);
        void *scratch = scratch_memory.get(scratch_);
        const int64_t begin = blocks_ * part / parts, end = blocks_ * (part + 1) / parts;
        for (int64_t block = begin; block < end; ++block) work(block * rows_, part, patches, products, scratch, block - begin);
      } catch (...) {
#pragma omp critical
        error = std::current_exception();
      }
    }
    if (error) std::rethrow_exception(error);
  }

  void multiply(const float *source, const void *weights, float *result, void *scratch) const {
    dnnl::stream stream(engine_);
    auto wrap = [&](const memory::desc &description, const void *data) { return memory(description, engine_, const_cast<void *>(data)); };
    const memory::desc bytes({scratch_}, memory::data_type::u8, memory::format_tag::a);
    product_.execute(stream, {{DNNL_ARG_SRC, wrap(source_, source)}, {DNNL_ARG_WEIGHTS, wrap(weights_, weights)},
                              {DNNL_ARG_DST, wrap(result_, result)}, {DNNL_ARG_SCRATCHPAD, wrap(bytes, scratch)}});
  }

  // The transforms of `rows` patches from tile `first` on; those beyond the last tile are zero.
  void transform_patches(const float *image, const float *zeros, int64_t first, float *patches) const {
    for (int64_t row = 0; row < rows_; ++row) {
      const float *patch[16];
      std::fill(patch, patch + 16, zeros);
      const int64_t tile = first + row;
      if (tile < tiles_) {
        const int64_t top = 2 * (tile / tile_columns_ % tile_rows_) - above_, start = 2 * (tile % tile_columns_) - left_;
        const float *origin = image + tile / (tile_rows_ * tile_columns_) * height_ * width_ * from_;
        for (int64_t i = 0; i < 4; ++i) {
          for (int64_t j = 0; j < 4; ++j) {
            const int64_t y = top + i, x = start + j;
            if (y >= 0 && y < height_ && x >= 0 && x < width_) patch[4 * i + j] = origin + (y * width_ + x) * from_;
          }
        }
      }
      transform_patch(patch, patches + row * from_, rows_ * from_, from_);
    }
  }

  // Where the four positions of a tile of [batch, out_height, out_width, to] lie; null outside it.
  template <typename Pointer>
  void place_tile(Pointer *data, int64_t tile, Pointer **places) const {
    const int64_t top = 2 * (tile / tile_columns_ % tile_rows_), start = 2 * (tile % tile_columns_);
    Pointer *origin = data + tile / (tile_rows_ * tile_columns_) * out_height_ * out_width_ * to_;
    for (int64_t i = 0; i < 2; ++i) {
      for (int64_t j = 0; j < 2; ++j) {
        const bool inside = top + i < out_height_ && start + j < out_width_;
        places[2 * i + j] = inside ? origin + ((top + i) * out_width_ + start + j) * to_ : nullptr;
      }
    }
  }

  const dnnl::engine &engine_;
  Role role_;
  int64_t height_, width_, from_, out_height_, out_width_, to_, above_, left_, threads_;
  int64_t tile_rows_, tile_columns_, tiles_, blocks_, rows_, scratch_ = 1, reorder_scratch_ = 1;
  memory::desc source_, weights_, result_, transformed_;
  dnnl::primitive product_, reorder_;
};

}  // namespace winograd
