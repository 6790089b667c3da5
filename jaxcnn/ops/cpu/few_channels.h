// Convolutions to few channels: sixteen images at once, one in each lane of a vector, where the channels would leave lanes empty.
//
// A block of sixteen turned images (lanes.h), zeros around them, stays in the cache of the core at work. There the taps of a row of the window lie
// beside each other, so that a convolution is sums of products of whole vectors. The blocks of sums are made for AVX-512's 32 registers.

#pragma once

#include <omp.h>

#include "lanes.h"

namespace few_channels {

using lanes::kImages;
using lanes::Scratch;

typedef __m512 Lanes;

// An image [batch, height, width, channels] and the windows that slide over it: y's place (i, j) sees x's rows from i * stride[0] - before[0] on.
struct Geometry {
  int64_t batch, height, width, channels, out_height, out_width, features, window[2], stride[2], before[2];

  int64_t padded_height() const { return std::max((out_height - 1) * stride[0] + window[0], before[0] + height); }
  int64_t padded_width() const { return std::max((out_width - 1) * stride[1] + window[1], before[1] + width); }
  int64_t row() const { return padded_width() * channels; }  // vectors
  int64_t bytes() const { return padded_height() * row() * sizeof(Lanes); }
};

// P places beside each other and F features of a row of y: `x` is the first tap of the first place, `w` its first feature; `rows` of the window.
template <int P, int F>
JAXCNN_AVX512 void places(const Geometry &g, int64_t rows, const Lanes *x, const float *w, Lanes *y) {
  const int64_t step = g.stride[1] * g.channels, taps = g.window[1] * g.channels, row = g.row(), features = g.features;
  __m512 sum[P][F];
  for (int p = 0; p < P; ++p) {
    for (int f = 0; f < F; ++f) sum[p][f] = _mm512_setzero_ps();
  }
  for (int64_t i = 0; i < rows; ++i, x += row) {
    for (int64_t t = 0; t < taps; ++t, w += features) {
      __m512 seen[P];
      for (int p = 0; p < P; ++p) seen[p] = x[p * step + t];
      for (int f = 0; f < F; ++f) {
        const __m512 weight = _mm512_set1_ps(w[f]);
        for (int p = 0; p < P; ++p) sum[p][f] = _mm512_fmadd_ps(seen[p], weight, sum[p][f]);
      }
    }
  }
  for (int p = 0; p < P; ++p) {
    for (int f = 0; f < F; ++f) y[p * features + f] = sum[p][f];
  }
}

// Row i of y for F features from feature `w` on.
template <int F>
void row_of_places(const Geometry &g, int64_t i, const Lanes *image, const float *w, Lanes *y) {
  constexpr int P = 4;
  // Rows of the window that lie outside of the image are zeros.
  const int64_t top = i * g.stride[0], first = std::max<int64_t>(0, g.before[0] - top);
  const int64_t rows = std::min(g.window[0], g.before[0] + g.height - top) - first, step = g.stride[1] * g.channels;
  const Lanes *x = image + (top + first) * g.row();
  w += first * g.window[1] * g.channels * g.features;
  if (g.out_width < P) {
    for (int64_t j = 0; j < g.out_width; ++j) places<1, F>(g, rows, x + j * step, w, y + j * g.features);
    return;
  }
  for (int64_t k = 0; k < g.out_width; k += P) {  // the last places are computed twice where P does not divide their number
    const int64_t j = std::min(k, g.out_width - P);
    places<P, F>(g, rows, x + j * step, w, y + j * g.features);
  }
}

// All features, at most six at a time, in parts as equal as can be.
inline void row_of_features(const Geometry &g, int64_t i, const Lanes *image, const float *w, Lanes *y) {
  static constexpr decltype(&row_of_places<1>) by_number[] = {row_of_places<1>, row_of_places<2>, row_of_places<3>,
                                                              row_of_places<4>, row_of_places<5>, row_of_places<6>};
  const int64_t parts = (g.features + 5) / 6;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t begin = g.features * part / parts, end = g.features * (part + 1) / parts;
    by_number[end - begin - 1](g, i, image, w + begin, y + begin);
  }
}

// y(x, w)
inline void output(const Geometry &g, int threads, const float *x, const float *w, float *y) {
  const int64_t width = g.width * g.channels, in = g.height * width, out_width = g.out_width * g.features, out = g.out_height * out_width;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t first = 0; first < g.batch; first += kImages) {
    static thread_local Scratch image_memory, row_memory;
    auto *image = static_cast<Lanes *>(image_memory.get(g.bytes()));
    auto *row = static_cast<Lanes *>(row_memory.get(out_width * sizeof(Lanes)));
    const int64_t number = std::min(kImages, g.batch - first);
    std::memset(image, 0, g.bytes());
    for (int64_t i = 0; i < g.height; ++i) {
      Lanes *inside = image + (g.before[0] + i) * g.row() + g.before[1] * g.channels;
      lanes::turn(x + first * in + i * width, in, number, width, reinterpret_cast<float *>(inside));
    }
    for (int64_t i = 0; i < g.out_height; ++i) {
      row_of_features(g, i, image, w, row);
      lanes::turn_back(reinterpret_cast<float *>(row), y + first * out + i * out_width, out, number, out_width);
    }
  }
}

// x(y, w) for strides of 1: y(x, w) with the roles of channels and features exchanged and the kernel turned.
inline void input(const Geometry &g, int threads, const float *y, const float *w, float *x) {
  static thread_local Scratch memory;
  const Geometry turned{g.batch,    g.out_height, g.out_width, g.features, g.height, g.width, g.channels, {g.window[0], g.window[1]},
                        {1, 1}, {g.window[0] - 1 - g.before[0], g.window[1] - 1 - g.before[1]}};
  const int64_t taps = g.window[0] * g.window[1];
  float *kernel = memory.floats(taps * g.channels * g.features);
  for (int64_t t = 0; t < taps; ++t) {
    for (int64_t c = 0; c < g.channels; ++c) {
      for (int64_t f = 0; f < g.features; ++f) {
        kernel[(t * g.features + f) * g.channels + c] = w[((taps - 1 - t) * g.channels + c) * g.features + f];
      }
    }
  }
  output(turned, threads, y, kernel, x);
}

}  // namespace few_channels
