// What the other files share: compilation for several processors, memory that is kept, and sixteen images in the lanes of vectors.
//
// Where images have few channels, a vector of channels is half empty. Sixteen images turned to [pixels * channels, 16] fill all lanes, and are an
// image of sixteen times as many channels to code that treats channels alike. This is for processors with AVX-512.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace lanes {

// g++ compiles these functions for each of the targets and chooses when the library is loaded.
#define JAXCNN_EVERY_TARGET __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
#define JAXCNN_AVX512 __attribute__((target("avx512f"), optimize("O3")))
#define JAXCNN_INLINE inline __attribute__((always_inline))

// Memory that grows and is kept.
class Scratch {
 public:
  void *get(size_t bytes) {
    if (bytes > size_) {
      std::free(data_);
      size_ = (bytes + 4095) / 4096 * 4096;
      data_ = std::aligned_alloc(4096, size_);
      if (data_ == nullptr) {
        size_ = 0;
        throw std::bad_alloc();
      }
    }
    return data_;
  }
  float *floats(int64_t count) { return static_cast<float *>(get(count * sizeof(float))); }

 private:
  void *data_ = nullptr;
  size_t size_ = 0;
};

constexpr int64_t kImages = 16;

// True where there are blocks of sixteen images for all threads, and the processor can turn them.
inline bool filled(int64_t images, int64_t threads) {
  static const bool supported = __builtin_cpu_supports("avx512f");
  return supported && images >= kImages * threads;
}

// v[i] lane j <-> v[j] lane i, in four rounds of exchanges between pairs of vectors.
JAXCNN_AVX512 JAXCNN_INLINE void transpose(__m512 *v) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]), t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + 2 + j]);
      v[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), v[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
  for (int i = 0; i < 4; ++i) {
    const __m512 a = _mm512_shuffle_f32x4(v[i], v[4 + i], 0x88), b = _mm512_shuffle_f32x4(v[i], v[4 + i], 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(v[8 + i], v[12 + i], 0x88), d = _mm512_shuffle_f32x4(v[8 + i], v[12 + i], 0xdd);
    t[i] = _mm512_shuffle_f32x4(a, c, 0x88), t[4 + i] = _mm512_shuffle_f32x4(b, d, 0x88);
    t[8 + i] = _mm512_shuffle_f32x4(a, c, 0xdd), t[12 + i] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
  for (int i = 0; i < 16; ++i) v[i] = t[i];
}

// Sixteen numbers of an image or of the lanes; `count` of them where there are fewer. Bytes are integers in a vector.
JAXCNN_AVX512 JAXCNN_INLINE __m512 load(const float *data, int64_t count) {
  return count >= 16 ? _mm512_loadu_ps(data) : _mm512_maskz_loadu_ps((1u << count) - 1, data);
}
JAXCNN_AVX512 JAXCNN_INLINE __m512 load(const uint8_t *data, int64_t count) {
  uint8_t bytes[16];
  std::memcpy(bytes, data, std::min<int64_t>(count, 16));
  return _mm512_castsi512_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes))));
}
JAXCNN_AVX512 JAXCNN_INLINE void store(float *data, __m512 v, int64_t count) {
  if (count >= 16) return _mm512_storeu_ps(data, v);
  _mm512_mask_storeu_ps(data, (1u << count) - 1, v);
}
JAXCNN_AVX512 JAXCNN_INLINE void store(uint8_t *data, __m512 v, int64_t count) {
  uint8_t bytes[16];
  _mm_storeu_si128(reinterpret_cast<__m128i *>(bytes), _mm512_cvtepi32_epi8(_mm512_castps_si512(v)));
  std::memcpy(data, bytes, std::min<int64_t>(count, 16));
}

// images[n * stride + k] -> turned[16 k + n], for n < number <= 16 and k < count; lanes without an image are 0.
template <typename Number>
JAXCNN_AVX512 void turn(const Number *images, int64_t stride, int64_t number, int64_t count, Number *turned) {
  for (int64_t k = 0; k < count; k += 16) {
    __m512 v[16];
    for (int n = 0; n < 16; ++n) v[n] = n < number ? load(images + n * stride + k, count - k) : _mm512_setzero_ps();
    transpose(v);
    for (int n = 0; n < 16 && k + n < count; ++n) store(turned + 16 * (k + n), v[n], 16);
  }
}

// turned[16 k + n] -> images[n * stride + k]
template <typename Number>
JAXCNN_AVX512 void turn_back(const Number *turned, Number *images, int64_t stride, int64_t number, int64_t count) {
  for (int64_t k = 0; k < count; k += 16) {
    __m512 v[16];
    for (int n = 0; n < 16; ++n) v[n] = k + n < count ? load(turned + 16 * (k + n), 16) : _mm512_setzero_ps();
    transpose(v);
    for (int n = 0; n < 16 && n < number; ++n) store(images + n * stride + k, v[n], count - k);
  }
}

}  // namespace lanes
