// Max-pooling that remembers which element won, and the two linear maps of its derivative; float32, images NHWC.
//
// `first` [batch, out_height, out_width, channels] is the position, in row-major order, of the first largest element of each window. Every call
// computes each pixel of its result from the pixels that it depends on, `put` as well: nothing is added up in memory, so rows can be computed
// in parallel, in an order of additions that does not depend on the threads.

#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "lanes.h"

namespace pooling {

// For each pixel of the result, along one axis: the pixels of the operand that it depends on, and the position in the window that joins them.
// Offsets and positions of a row and a column add up; a position is a byte four times over.
struct Axis {
  struct Link {
    int64_t offset;
    int32_t position;
  };
  std::vector<Link> links;
  std::vector<int64_t> begin{0};  // those of pixel i: links[begin[i]], …, links[begin[i + 1] - 1]

  const Link *first(int64_t i) const { return links.data() + begin[i]; }
  const Link *last(int64_t i) const { return links.data() + begin[i + 1]; }
};

// One axis of the images and of the windows on them. A step along it is `pixel` floats in the operand, and `place` positions in a window.
struct Extent {
  int64_t image, windows, window, stride, before;

  Axis windows_from_image(int64_t pixel, int64_t place) const {
    Axis axis;
    for (int64_t i = 0; i < windows; ++i) {
      for (int64_t position = 0; position < window; ++position) {
        const int64_t source = i * stride - before + position;
        if (source >= 0 && source < image) axis.links.push_back({source * pixel, repeated(position * place)});
      }
      axis.begin.push_back(static_cast<int64_t>(axis.links.size()));
    }
    return axis;
  }

  Axis image_from_windows(int64_t pixel, int64_t place) const {
    Axis axis;
    for (int64_t i = 0; i < image; ++i) {
      for (int64_t position = 0; position < window; ++position) {
        const int64_t start = i + before - position;
        if (start < 0 || start % stride != 0 || start / stride >= windows) continue;
        axis.links.push_back({start / stride * pixel, repeated(position * place)});
      }
      axis.begin.push_back(static_cast<int64_t>(axis.links.size()));
    }
    return axis;
  }

  static int32_t repeated(int64_t position) { return static_cast<int32_t>(position * 0x01010101); }
};

// N channels at once, and their positions: as integers, a byte four times over. Wider than eight, g++ 12 takes comparisons apart for AVX2; the
// conversions of its vectors it takes apart at any width, hence the shuffles.
typedef uint8_t Bytes16 __attribute__((vector_size(16)));
typedef uint8_t Bytes32 __attribute__((vector_size(32)));
typedef int32_t Words16 __attribute__((vector_size(16)));
typedef int64_t Words32 __attribute__((vector_size(32)));

template <int N>
struct Lanes {
  typedef float Floats __attribute__((vector_size(4 * N), aligned(4), may_alias));
  typedef int32_t Integers __attribute__((vector_size(4 * N)));

  static JAXCNN_INLINE Floats load(const float *data) { return *reinterpret_cast<const Floats *>(data); }
  static JAXCNN_INLINE void store(float *data, Floats lanes) { *reinterpret_cast<Floats *>(data) = lanes; }

  static JAXCNN_INLINE Integers load_positions(const uint8_t *data) {
    if constexpr (N == 8) {
      int64_t word;
      std::memcpy(&word, data, 8);
      const Bytes32 order{0,  0,  0,  0,  1,  1,  1,  1,  2,  2,  2,  2,  3,  3,  3,  3,
                          20, 20, 20, 20, 21, 21, 21, 21, 22, 22, 22, 22, 23, 23, 23, 23};
      return (Integers)__builtin_shuffle((Bytes32)(Words32{} + word), order);
    } else if constexpr (N == 4) {
      int32_t word;
      std::memcpy(&word, data, 4);
      return (Integers)__builtin_shuffle((Bytes16)(Words16{} + word), Bytes16{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3});
    } else {
      return Integers{} + *data * 0x01010101;
    }
  }

  static JAXCNN_INLINE void store_positions(uint8_t *data, Integers positions) {
    if constexpr (N == 8) {
      const Bytes32 bytes = __builtin_shuffle((Bytes32)positions, Bytes32{0, 4, 8, 12, 16, 20, 24, 28});
      std::memcpy(data, &bytes, N);
    } else if constexpr (N == 4) {
      const Bytes16 bytes = __builtin_shuffle((Bytes16)positions, Bytes16{0, 4, 8, 12});
      std::memcpy(data, &bytes, N);
    } else {
      std::memcpy(data, &positions, N);
    }
  }
};

// What a row of the result depends on.
struct Row {
  const Axis::Link *first, *last;  // rows of the operand
  const Axis &columns;
  int64_t width, channels;
};

// body(offset in the row of the result, channel, links of the column) for each pixel, `step` channels at a time. The last channels are computed
// twice where `step` does not divide their number.
template <int step, typename Body>
JAXCNN_INLINE void each_pixel(const Row &row, const Body &body) {
  for (int64_t j = 0; j < row.width; ++j) {
    const Axis::Link *begin = row.columns.first(j), *end = row.columns.last(j);
    for (int64_t c = 0; c < row.channels; c += step) {
      const int64_t channel = std::min(c, row.channels - step);
      body(j * row.channels + channel, channel, begin, end);
    }
  }
}

// Each works on U times N channels at once.
template <int N, int U>
JAXCNN_INLINE void max_row(const Row &row, const float *x, float *y, uint8_t *first) {
  typedef Lanes<N> L;
  each_pixel<N * U>(row, [&](int64_t at, int64_t channel, const Axis::Link *begin, const Axis::Link *end) __attribute__((always_inline)) {
    typename L::Floats largest[U];
    typename L::Integers won[U];
    const bool any = row.first != row.last && begin != end;
    for (int u = 0; u < U; ++u) {
      largest[u] = typename L::Floats{} - std::numeric_limits<float>::infinity();
      won[u] = typename L::Integers{} + (any ? row.first->position + begin->position : 0);
    }
    for (const Axis::Link *r = row.first; r != row.last; ++r) {
      for (const Axis::Link *s = begin; s != end; ++s) {
        const int64_t from = r->offset + s->offset + channel;
        const auto position = typename L::Integers{} + (r->position + s->position);
        for (int u = 0; u < U; ++u) {
          const auto value = L::load(x + from + u * N);
          const auto larger = value > largest[u], not_a_number = value != value;  // which is what the result is then
          won[u] = larger ? position : won[u], largest[u] = larger ? value : largest[u];
          won[u] = not_a_number ? position : won[u], largest[u] = not_a_number ? value : largest[u];
        }
      }
    }
    for (int u = 0; u < U; ++u) L::store(y + at + u * N, largest[u]), L::store_positions(first + at + u * N, won[u]);
  });
}

template <int N, int U>
JAXCNN_INLINE void take_row(const Row &row, const float *x, const uint8_t *first, float *y) {
  typedef Lanes<N> L;
  each_pixel<N * U>(row, [&](int64_t at, int64_t channel, const Axis::Link *begin, const Axis::Link *end) __attribute__((always_inline)) {
    typename L::Floats taken[U];
    typename L::Integers won[U];
    for (int u = 0; u < U; ++u) taken[u] = typename L::Floats{}, won[u] = L::load_positions(first + at + u * N);
    for (const Axis::Link *r = row.first; r != row.last; ++r) {
      for (const Axis::Link *s = begin; s != end; ++s) {
        const int64_t from = r->offset + s->offset + channel;
        const auto position = typename L::Integers{} + (r->position + s->position);
        for (int u = 0; u < U; ++u) taken[u] = won[u] == position ? L::load(x + from + u * N) : taken[u];
      }
    }
    for (int u = 0; u < U; ++u) L::store(y + at + u * N, taken[u]);
  });
}

template <int N, int U>
JAXCNN_INLINE void put_row(const Row &row, const float *y, const uint8_t *first, float *x) {
  typedef Lanes<N> L;
  each_pixel<N * U>(row, [&](int64_t at, int64_t channel, const Axis::Link *begin, const Axis::Link *end) __attribute__((always_inline)) {
    typename L::Floats sum[U];
    for (int u = 0; u < U; ++u) sum[u] = typename L::Floats{};
    for (const Axis::Link *r = row.first; r != row.last; ++r) {
      for (const Axis::Link *s = begin; s != end; ++s) {
        const int64_t from = r->offset + s->offset + channel;
        const auto position = typename L::Integers{} + (r->position + s->position);
        for (int u = 0; u < U; ++u) {
          const auto value = L::load(y + from + u * N);
          sum[u] += L::load_positions(first + from + u * N) == position ? value : typename L::Floats{};
        }
      }
    }
    for (int u = 0; u < U; ++u) L::store(x + at + u * N, sum[u]);
  });
}

// As many channels at once as there are.
#define JAXCNN_BY_CHANNELS(function, ...)                     \
  (row.channels >= 32   ? function<8, 4>(row, __VA_ARGS__)    \
   : row.channels >= 16 ? function<8, 2>(row, __VA_ARGS__)    \
   : row.channels >= 8  ? function<8, 1>(row, __VA_ARGS__)    \
   : row.channels >= 4  ? function<4, 1>(row, __VA_ARGS__)    \
                        : function<1, 1>(row, __VA_ARGS__))

JAXCNN_EVERY_TARGET void max(const Row &row, const float *x, float *y, uint8_t *first) { JAXCNN_BY_CHANNELS(max_row, x, y, first); }
JAXCNN_EVERY_TARGET void take(const Row &row, const float *x, const uint8_t *first, float *y) { JAXCNN_BY_CHANNELS(take_row, x, first, y); }
JAXCNN_EVERY_TARGET void put(const Row &row, const float *y, const uint8_t *first, float *x) { JAXCNN_BY_CHANNELS(put_row, y, first, x); }

struct Geometry {
  int64_t batch, channels;
  Extent rows, columns;
};

// work(row, offset of the operand's image, offset of the result's row), for each row of a result of `height` by `width`, in parallel.
template <typename Work>
void each_row(const Geometry &g, const Axis &rows, const Axis &columns, int64_t image_size, int threads, const Work &work) {
  const int64_t height = static_cast<int64_t>(rows.begin.size()) - 1, width = static_cast<int64_t>(columns.begin.size()) - 1;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t k = 0; k < g.batch * height; ++k) {
    const Row row{rows.first(k % height), rows.last(k % height), columns, width, g.channels};
    work(row, k / height * image_size, k * width * g.channels);
  }
}

template <typename Work>
void each_row_of_windows(const Geometry &g, int threads, const Work &work) {
  const int64_t row = g.columns.image * g.channels;
  each_row(g, g.rows.windows_from_image(row, g.columns.window), g.columns.windows_from_image(g.channels, 1), g.rows.image * row, threads, work);
}

inline void max_of_images(const Geometry &g, int threads, const float *x, float *y, uint8_t *first) {
  each_row_of_windows(g, threads, [&](const Row &row, int64_t image, int64_t at) { max(row, x + image, y + at, first + at); });
}

inline void take_of_images(const Geometry &g, int threads, const float *x, const uint8_t *first, float *y) {
  each_row_of_windows(g, threads, [&](const Row &row, int64_t image, int64_t at) { take(row, x + image, first + at, y + at); });
}

inline void put_of_images(const Geometry &g, int threads, const float *y, const uint8_t *first, float *x) {
  const int64_t row = g.columns.windows * g.channels;
  each_row(g, g.rows.image_from_windows(row, g.columns.window), g.columns.image_from_windows(g.channels, 1), g.rows.windows * row, threads,
           [&](const Row &row, int64_t image, int64_t at) { put(row, y + image, first + image, x + at); });
}

// ---- few channels: sixteen images in lanes, as one image of sixteen times as many channels ------------------------------------------

inline bool fills_lanes(const Geometry &g, int threads) { return g.channels < 8 && lanes::filled(g.batch, threads); }

// Of sixteen images, `size` numbers each; turned on the way in or out.
template <typename Number>
class Block {
 public:
  Block(lanes::Scratch &memory, int64_t size) : data(static_cast<Number *>(memory.get(size * lanes::kImages * sizeof(Number)))), size_(size) {}
  void read(const Number *images, int64_t first, int64_t number) { lanes::turn(images + first * size_, size_, number, size_, data); }
  void write(Number *images, int64_t first, int64_t number) { lanes::turn_back(data, images + first * size_, size_, number, size_); }

  Number *data;

 private:
  int64_t size_;
};

// work(geometry of one image of sixteen times as many channels, x, y and first of the block, first image, number of images)
template <typename Work>
void each_block(const Geometry &g, int threads, const Work &work) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t first = 0; first < g.batch; first += lanes::kImages) {
    static thread_local lanes::Scratch x_memory, y_memory, first_memory;
    const int64_t windows = g.rows.windows * g.columns.windows * g.channels;
    Block<float> x(x_memory, g.rows.image * g.columns.image * g.channels), y(y_memory, windows);
    Block<uint8_t> won(first_memory, windows);
    const Geometry one{1, g.channels * lanes::kImages, g.rows, g.columns};
    work(one, x, y, won, first, std::min(lanes::kImages, g.batch - first));
  }
}

inline void max(const Geometry &g, int threads, const float *x, float *y, uint8_t *first) {
  if (!fills_lanes(g, threads)) return max_of_images(g, threads, x, y, first);
  each_block(g, threads, [&](const Geometry &one, auto &in, auto &out, auto &won, int64_t image, int64_t number) {
    in.read(x, image, number);
    max_of_images(one, 1, in.data, out.data, won.data);
    out.write(y, image, number), won.write(first, image, number);
  });
}

inline void take(const Geometry &g, int threads, const float *x, const uint8_t *first, float *y) {
  if (!fills_lanes(g, threads)) return take_of_images(g, threads, x, first, y);
  each_block(g, threads, [&](const Geometry &one, auto &in, auto &out, auto &won, int64_t image, int64_t number) {
    in.read(x, image, number), won.read(first, image, number);
    take_of_images(one, 1, in.data, won.data, out.data);
    out.write(y, image, number);
  });
}

inline void put(const Geometry &g, int threads, const float *y, const uint8_t *first, float *x) {
  if (!fills_lanes(g, threads)) return put_of_images(g, threads, y, first, x);
  each_block(g, threads, [&](const Geometry &one, auto &in, auto &out, auto &won, int64_t image, int64_t number) {
    out.read(y, image, number), won.read(first, image, number);
    put_of_images(one, 1, out.data, won.data, in.data);
    in.write(x, image, number);
  });
}

}  // namespace pooling
