// oneDNN's convolution and its two gradients for one geometry: described, created once, kept, executed. float32, images NHWC, kernels HWIO.
//
// Few channels (few_channels.h) and most 3x3 windows of stride 1 (winograd.h) are computed in other ways than oneDNN's own.

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "few_channels.h"
#include "lanes.h"
#include "oneapi/dnnl/dnnl.hpp"
#include "winograd.h"

namespace convolution {

using dnnl::memory;
using lanes::Scratch;
using Tag = memory::format_tag;

constexpr auto kFloat = memory::data_type::f32;
constexpr size_t kCachedPrimitives = 1024;  // ResNet-50 needs about 70; a program with ever new shapes must not grow for ever

enum Role : int64_t { kOutput, kInput, kKernel };

// It lives as long as the process and is never destroyed: at exit the thread that works may still be alive.
inline dnnl::engine &cpu() {
  static auto *engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

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
inline bool suits_few_channels(const Geometry &g) {
  const int64_t results = g.role == kOutput ? g.features : g.channels;
  const bool unit = g.stride[0] == 1 && g.stride[1] == 1;
  const bool plain = g.groups == 1 && g.dilation[0] == 1 && g.dilation[1] == 1 && (g.role == kOutput || (g.role == kInput && unit));
  const bool inside = g.padding[0] < g.window_height && g.padding[2] < g.window_width;
  return results < winograd::kLanes && plain && inside && lanes::filled(g.batch, g.threads);
}

inline std::unique_ptr<few_channels::Geometry> describe_few_channels(const Geometry &g) {
  return std::make_unique<few_channels::Geometry>(
      few_channels::Geometry{g.batch, g.height, g.width, g.channels, g.out_height, g.out_width, g.features, {g.window_height, g.window_width},
                             {g.stride[0], g.stride[1]}, {g.padding[0], g.padding[2]}});
}

// True where Winograd's algorithm computes what the geometry asks for, in less time. Both costs are in multiplications; what the transformations
// cost was fitted to times of 27 shapes on two cores (docs/performance.md).
inline bool suits_winograd(const Geometry &g) {
  const bool square = g.window_height == 3 && g.window_width == 3 && g.stride[0] == 1 && g.stride[1] == 1 && g.dilation[0] == 1 && g.dilation[1] == 1;
  const bool padded = std::all_of(g.padding, g.padding + 4, [](int64_t n) { return n <= 2; });
  const bool whole = g.groups == 1 && g.channels % winograd::kLanes == 0 && g.features % winograd::kLanes == 0;
  if (!square || !padded || !whole) return false;
  const int64_t height = g.role == kInput ? g.height : g.out_height, width = g.role == kInput ? g.width : g.out_width;
  const double pixels = g.batch * height * width, tiles = g.batch * ((height + 1) / 2) * ((width + 1) / 2);
  const double kernels = g.channels * g.features, each_kernel = g.role == kKernel ? 50 * g.threads : 100;
  return 16 * kernels * (tiles + each_kernel) + 300 * tiles * (g.channels + g.features) < 0.9 * 9 * kernels * (pixels + 70);
}

inline std::unique_ptr<winograd::Convolution> describe_winograd(const Geometry &g) {
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
inline std::unique_ptr<Convolution> describe(const Geometry &g, bool create) {
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
inline const Convolution &cached(const Geometry &geometry) {
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

inline void execute(const Convolution &conv, int64_t role, int threads, float *x, float *w, float *y) {
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

}  // namespace convolution
