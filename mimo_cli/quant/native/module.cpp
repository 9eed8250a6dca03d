// The Python face of the kernels. Addresses and sizes in, nothing allocated; mimo_cli/quant/kernels.py checks them.
// The GIL is released while a kernel runs.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <stdexcept>

#include "capi.hpp"
#include "cpu.hpp"
#include "encode.hpp"
#include "quantize.hpp"

namespace nb = nanobind;

namespace {

using Address = uintptr_t;

template <class T>
T* at(Address a) {
  return reinterpret_cast<T*>(a);
}

class Compute {
 public:
  Compute(const std::string& isa, int threads) : handle_(mimo_open(isa.c_str(), threads)) {
    if (!handle_) throw std::invalid_argument("no kernels for `" + isa + "` on this processor");
  }
  ~Compute() { mimo_close(handle_); }
  Compute(const Compute&) = delete;
  Compute& operator=(const Compute&) = delete;
  mimo_compute* get() const { return handle_; }

 private:
  mimo_compute* handle_;
};

class Layers {
 public:
  Layers(int hidden, bool is_bfloat16, Address last, float eps) : handle_(mimo_layers_open(hidden, is_bfloat16, at<const void>(last), eps)) {}
  ~Layers() { mimo_layers_close(handle_); }
  Layers(const Layers&) = delete;
  Layers& operator=(const Layers&) = delete;
  mimo_layers* get() const { return handle_; }

 private:
  mimo_layers* handle_;
};

}  // namespace

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // the kernels live until the process ends; that is no leak to report on stderr
  m.doc() = "Kernels over packed weights; see mimo_cli/quant/kernels.py.";
  m.def("cpu_features", [] {
    nb::dict features;
    features["avx2"] = mimo::cpu_has_avx2();
    features["avx512"] = mimo::cpu_has_avx512();
    return features;
  });
  m.def("packed_bytes", &mimo_packed_bytes);
  nb::class_<Layers>(m, "Layers")
      .def(nb::init<int, bool, Address, float>())
      .def("attention",
           [](Layers& l, int turn, Address before, Address after, float eps_before, float eps_after, int format, int group, Address qkv,
              int precision, int output_format, int output_group, Address output, int output_precision, int heads, int kv_heads, int width,
              int value_width, int half, float value_scale, int window, float factor, Address sinks) {
             mimo_layers_attention(l.get(), turn, at<const void>(before), at<const void>(after), eps_before, eps_after, format, group,
                                   at<const uint8_t>(qkv), precision, output_format, output_group, at<const uint8_t>(output),
                                   output_precision, heads, kv_heads, width, value_width, half, value_scale, window, factor,
                                   at<const float>(sinks));
           })
      .def("feed_forward",
           [](Layers& l, int width, int gate_format, int gate_group, Address gate, int gate_precision, int up_format, int up_group, Address up,
              int up_precision, int down_format, int down_group, Address down, int down_precision) {
             mimo_layers_feed_forward(l.get(), width, gate_format, gate_group, at<const uint8_t>(gate), gate_precision, up_format, up_group,
                                      at<const uint8_t>(up), up_precision, down_format, down_group, at<const uint8_t>(down), down_precision);
           })
      .def("experts",
           [](Layers& l, Address weight, Address bias, int experts, int active, bool normalizes, float factor, int format, int group, int width,
              int precision, Address slots, Address memory, int64_t slot_bytes) {
             mimo_layers_experts(l.get(), at<const float>(weight), at<const float>(bias), experts, active, normalizes, factor, format, group,
                                 width, precision, at<const int32_t>(slots), at<const uint8_t>(memory), slot_bytes);
           });
  nb::class_<Compute>(m, "Compute")
      .def(nb::init<const std::string&, int>())
      .def_prop_ro("isa", [](const Compute& c) { return std::string(mimo_isa(c.get())); })
      .def("pack",
           [](const Compute& c, int format, int group, int rows, int cols, int streams, Address data, int which, Address codes, Address scales) {
             nb::gil_scoped_release release;
             mimo_pack(c.get(), format, group, rows, cols, streams, at<uint8_t>(data), which, at<void>(codes), at<void>(scales));
           })
      .def("pack_nibbles",
           [](const Compute& c, int rows, int cols, int streams, Address data, int which, Address nibbles, Address scales) {
             nb::gil_scoped_release release;
             mimo_pack_nibbles(c.get(), rows, cols, streams, at<uint8_t>(data), which, at<const uint8_t>(nibbles), at<const uint8_t>(scales));
           })
      .def("linear",
           [](const Compute& c, int format, int group, int rows, int cols, Address data, Address x, Address y, int tokens, int precision) {
             nb::gil_scoped_release release;
             mimo_linear(c.get(), format, group, rows, cols, at<const uint8_t>(data), at<const float>(x), at<float>(y), tokens, precision);
           })
      .def("moe",
           [](const Compute& c, int format, int group, int hidden, int width, int experts, Address gate_up, Address down, Address pair_token,
              Address pair_expert, Address pair_weight, int pairs, int tokens, Address x, Address out, int precision) {
             nb::gil_scoped_release release;
             mimo_moe(c.get(), format, group, hidden, width, experts, at<const uint64_t>(gate_up), at<const uint64_t>(down),
                      at<const int32_t>(pair_token), at<const int32_t>(pair_expert), at<const float>(pair_weight), pairs, tokens, at<const float>(x),
                      at<float>(out), precision);
           })
      .def("rotate",
           [](const Compute&, Address qkv, bool is_bfloat16, int tokens, int heads, int kv_heads, int width, int value_width, int half, Address cos,
              Address sin, float value_scale, Address query, Address keys, Address values) {
             mimo_rotate(at<const void>(qkv), is_bfloat16, tokens, heads, kv_heads, width, value_width, half, at<const float>(cos),
                         at<const float>(sin), value_scale, at<float>(query), at<void>(keys), at<void>(values));
           })
      .def("attend",
           [](const Compute& c, int tokens, int heads, int kv_heads, int width, int value_width, Address query, Address keys, Address values,
              int64_t key_stride, int64_t value_stride, bool is_bfloat16, int offset, int window, float factor, Address sinks, Address out) {
             nb::gil_scoped_release release;
             mimo_attend(c.get(), tokens, heads, kv_heads, width, value_width, at<const float>(query), at<const void>(keys), at<const void>(values),
                         key_stride, value_stride, is_bfloat16, offset, window, factor, at<const float>(sinks), at<float>(out));
           })
      .def("norm",
           [](const Compute&, Address x, bool is_bfloat16, int tokens, int size, Address weight, float eps, Address out) {
             mimo_norm(at<const void>(x), is_bfloat16, tokens, size, at<const void>(weight), eps, at<void>(out));
           })
      .def("linear_cells",
           [](const Compute& c, int format, int group, int rows, int cols, Address data, Address x, bool is_bfloat16, Address y, int tokens,
              int precision) {
             nb::gil_scoped_release release;
             mimo_linear_cells(c.get(), format, group, rows, cols, at<const uint8_t>(data), at<const void>(x), is_bfloat16, at<void>(y), tokens,
                               precision);
           })
      .def("attention_block",
           [](const Compute& c, Address x, bool is_bfloat16, int tokens, int hidden, Address before, Address after, float eps_before,
              float eps_after, int format, int group, Address qkv, int precision, int output_format, int output_group, Address output,
              int output_precision, int heads, int kv_heads, int width, int value_width, int half, Address cos, Address sin, float value_scale,
              Address keys, Address values, int64_t key_stride, int64_t value_stride, int offset, int window, float factor, Address sinks,
              Address sum, Address normed) {
             nb::gil_scoped_release release;
             mimo_attention_block(c.get(), at<const void>(x), is_bfloat16, tokens, hidden, at<const void>(before), at<const void>(after),
                                  eps_before, eps_after, format, group, at<const uint8_t>(qkv), precision, output_format, output_group,
                                  at<const uint8_t>(output), output_precision, heads, kv_heads, width, value_width, half, at<const float>(cos),
                                  at<const float>(sin), value_scale, at<void>(keys), at<void>(values), key_stride, value_stride, offset, window,
                                  factor, at<const float>(sinks), at<void>(sum), at<void>(normed));
           })
      .def("feed_forward",
           [](const Compute& c, Address x, bool is_bfloat16, int tokens, int hidden, int width, int gate_format, int gate_group, Address gate,
              int gate_precision, int up_format, int up_group, Address up, int up_precision, int down_format, int down_group, Address down,
              int down_precision, Address out) {
             nb::gil_scoped_release release;
             mimo_feed_forward(c.get(), at<const void>(x), is_bfloat16, tokens, hidden, width, gate_format, gate_group, at<const uint8_t>(gate),
                               gate_precision, up_format, up_group, at<const uint8_t>(up), up_precision, down_format, down_group,
                               at<const uint8_t>(down), down_precision, at<void>(out));
           })
      .def("run_layers",
           [](const Compute& c, const Layers& layers, int first, int tokens, Address sum, Address normed, Address cos, Address sin,
              Address other_cos, Address other_sin, Address seen, Address ids, Address expert_weights, Address used, Address seconds) {
             nb::gil_scoped_release release;
             const float* turns[] = {at<const float>(cos), at<const float>(sin), at<const float>(other_cos), at<const float>(other_sin)};
             return mimo_layers_run(c.get(), layers.get(), first, tokens, at<void>(sum), at<void>(normed), turns, at<const int64_t>(seen),
                                    at<int64_t>(ids), at<float>(expert_weights), at<int32_t>(used), at<double>(seconds));
           })
      .def("route",
           [](const Compute& c, Address x, bool is_bfloat16, int tokens, int hidden, Address weight, Address bias, int experts, int active,
              bool normalizes, float factor, Address ids, Address expert_weights) {
             nb::gil_scoped_release release;
             mimo_route(c.get(), at<const void>(x), is_bfloat16, tokens, hidden, at<const float>(weight), at<const float>(bias), experts, active,
                        normalizes, factor, at<int64_t>(ids), at<float>(expert_weights));
           })
      .def("dot_probe", [](const Compute& c, int64_t count) {
        nb::gil_scoped_release release;
        return mimo_dot_probe(c.get(), count);
      })
      .def("read_probe", [](const Compute& c, Address data, int64_t bytes, int threads) {
        nb::gil_scoped_release release;
        return mimo_read_probe(c.get(), at<const uint8_t>(data), bytes, threads);
      });
  m.def("quantize_int4", [](Address weights, Address importance, int rows, int cols, int group, Address codes, Address scales) {
    nb::gil_scoped_release release;
    return mimo::quantize_int4(at<const float>(weights), at<const float>(importance), rows, cols, group, at<int8_t>(codes), at<uint16_t>(scales));
  });
  m.def("quantize_int8", [](Address weights, int rows, int cols, Address codes, Address scales) {
    nb::gil_scoped_release release;
    return mimo::quantize_int8(at<const float>(weights), rows, cols, at<int8_t>(codes), at<uint16_t>(scales));
  });
  m.def("quantize_mxfp4", [](Address weights, int rows, int cols, Address codes, Address scales) {
    nb::gil_scoped_release release;
    return mimo::quantize_mxfp4(at<const float>(weights), rows, cols, at<uint8_t>(codes), at<uint8_t>(scales));
  });
  m.def("expand_fp8", [](Address codes, Address scales, Address row_block, int scale_cols, int rows, int cols, Address out) {
    nb::gil_scoped_release release;
    mimo::expand_fp8(at<const uint8_t>(codes), at<const float>(scales), at<const int32_t>(row_block), scale_cols, rows, cols, at<float>(out));
  });
  m.def("can_encode", &mimo::can_encode);
  m.def("encode", [](int format, int group, int rows, int cols, int streams, Address data, int which, int kind, Address source, Address scales,
                     Address row_block) {
    const mimo::Source from{mimo::Source::Kind(kind), at<void>(source), at<const float>(scales), at<const int32_t>(row_block)};
    mimo::Loss loss;
    bool sound;
    {
      nb::gil_scoped_release release;
      sound = mimo::encode({mimo::Format(format), group, rows, cols, streams, nullptr}, at<uint8_t>(data), which, from, &loss);
    }
    return std::make_tuple(sound, loss.error, loss.weights);
  });
  m.def("any_fp8_nan", [](Address codes, int64_t count) {
    nb::gil_scoped_release release;
    return mimo::any_fp8_nan(at<const uint8_t>(codes), size_t(count));
  });
  m.def("decode_stream", [](int format, int group, int rows, int cols, int streams, Address data, int which, Address out) {
    nb::gil_scoped_release release;
    mimo::decode_stream({mimo::Format(format), group, rows, cols, streams, at<const uint8_t>(data)}, which, at<float>(out));
  });
  m.def("compare_floats", [](Address a, Address b, int64_t count) {
    mimo::Loss loss;
    double largest = 0;
    {
      nb::gil_scoped_release release;
      loss = mimo::compare_floats(at<const float>(a), at<const float>(b), size_t(count), &largest);
    }
    return std::make_tuple(loss.error, loss.weights, largest);
  });
}
