// The C interface: plain pointers and integers, no torch, no Python.
#pragma once
#include <cstdint>
extern "C" {
typedef struct mimo_compute mimo_compute;
mimo_compute* mimo_open(const char* isa, int threads);  // null: this machine has no such kernels
void mimo_close(mimo_compute*);
const char* mimo_isa(const mimo_compute*);
int64_t mimo_packed_bytes(int format, int group, int rows, int cols, int streams);  // -1: not a format this library reads
void mimo_pack(mimo_compute*, int format, int group, int rows, int cols, int streams, uint8_t* data, int which, const void* codes, const void* scales);
void mimo_pack_nibbles(mimo_compute*, int rows, int cols, int streams, uint8_t* data, int which, const uint8_t* nibbles, const uint8_t* scales);
void mimo_linear(mimo_compute*, int format, int group, int rows, int cols, const uint8_t* data, const float* x, float* y, int tokens, int precision);
// One layer of experts, added to out. gate_up, down [experts] addresses of streams; pair_expert [pairs] indexes them.
void mimo_moe(mimo_compute*, int format, int group, int hidden, int width, int experts, const uint64_t* gate_up, const uint64_t* down,
              const int32_t* pair_token, const int32_t* pair_expert, const float* pair_weight, int pairs, int tokens, const float* x,
              float* out, int precision);
// Rotary embedding and attention of some tokens over cached keys: see attention.hpp. sinks may be null, window negative.
void mimo_rotate(const void* qkv, int is_bfloat16, int tokens, int heads, int kv_heads, int width, int value_width, int half, const float* cos,
                 const float* sin, float value_scale, float* query, void* keys, void* values);
void mimo_attend(mimo_compute*, int tokens, int heads, int kv_heads, int width, int value_width, const float* query, const void* keys,
                 const void* values, int64_t key_stride, int64_t value_stride, int is_bfloat16, int offset, int window, float factor,
                 const float* sinks, float* out);
// A decoder layer around its matrices: see block.hpp. x, qkv, sum, normed, norm_weight: float32 or bfloat16 cells.
void mimo_norm(const void* x, int is_bfloat16, int tokens, int size, const void* norm_weight, float eps, void* out);
void mimo_linear_cells(mimo_compute*, int format, int group, int rows, int cols, const uint8_t* data, const void* x, int is_bfloat16, void* y,
                       int tokens, int precision);
// keys, values: what is seen, [kv_heads, offset + tokens, ..]; the new ones are written behind `offset`.
void mimo_attention_block(mimo_compute*, const void* x, int is_bfloat16, int tokens, int hidden, const void* before, const void* after,
                          float eps_before, float eps_after, int format, int group, const uint8_t* qkv, int precision, int output_format,
                          int output_group, const uint8_t* output, int output_precision, int heads, int kv_heads, int width,
                          int value_width, int half, const float* cos, const float* sin, float value_scale, void* keys, void* values,
                          int64_t key_stride, int64_t value_stride, int offset, int window, float factor, const float* sinks, void* sum,
                          void* normed);
void mimo_route(mimo_compute*, const void* x, int is_bfloat16, int tokens, int hidden, const float* weight, const float* bias, int experts,
                int active, int normalizes, float factor, int64_t* ids, float* expert_weights);
// Gate and up [width, hidden], down [hidden, width]; x and out as above.
void mimo_feed_forward(mimo_compute*, const void* x, int is_bfloat16, int tokens, int hidden, int width, int gate_format, int gate_group,
                       const uint8_t* gate, int gate_precision, int up_format, int up_group, const uint8_t* up, int up_precision,
                       int down_format, int down_group, const uint8_t* down, int down_precision, void* out);

// Layers one after the other: see layers.hpp. Opened with the last norm; each layer begins with its attention, then comes
// what feeds forward. Addresses are kept: what they name must stay.
typedef struct mimo_layers mimo_layers;
mimo_layers* mimo_layers_open(int hidden, int is_bfloat16, const void* last, float eps);
void mimo_layers_close(mimo_layers*);
void mimo_layers_attention(mimo_layers*, int turn, const void* before, const void* after, float eps_before, float eps_after, int format,
                           int group, const uint8_t* qkv, int precision, int output_format, int output_group, const uint8_t* output,
                           int output_precision, int heads, int kv_heads, int width, int value_width, int half, float value_scale,
                           int window, float factor, const float* sinks);
void mimo_layers_feed_forward(mimo_layers*, int width, int gate_format, int gate_group, const uint8_t* gate, int gate_precision, int up_format,
                              int up_group, const uint8_t* up, int up_precision, int down_format, int down_group, const uint8_t* down,
                              int down_precision);
void mimo_layers_experts(mimo_layers*, const float* weight, const float* bias, int experts, int active, int normalizes, float factor, int format,
                         int group, int width, int precision, const int32_t* slots, const uint8_t* memory, int64_t slot_bytes);
// turns: cos, sin of the first rotation, then of the second. seen: for each layer keys, values, their strides, the offset.
int mimo_layers_run(mimo_compute*, const mimo_layers*, int first, int tokens, void* sum, void* normed, const float* const* turns,
                    const int64_t* seen, int64_t* ids, float* expert_weights, int32_t* used, double* seconds);
int64_t mimo_dot_probe(mimo_compute*, int64_t count);  // register-only dot products on all threads; returns the multiplications
uint64_t mimo_read_probe(mimo_compute*, const uint8_t* data, int64_t bytes, int threads);  // plain load of all bytes
}
