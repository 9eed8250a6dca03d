// Attention of a few queries over cached keys: what decoding a token and verifying a draft need.
//
// A query's keys are cut into chunks from the first one it sees. Chunks of all queries and heads are shared out to the
// threads, then joined in their order: neither the threads nor the other queries change a bit of an answer.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mimo {

constexpr int kChunkKeys = 512;

// Keys and values of one key/value head, and the queries of its group.
struct AttendChunk {
  const float* query;  // [group, query_stride], columns from width on are zero
  int group, width, value_width, query_stride;
  const void *keys, *values;  // [count, width], [count, value_width]: float32, or bfloat16
  bool is_bfloat16;
  int count;       // of keys, at most kChunkKeys
  float factor;    // of the scores
  float* scores;   // [group, kChunkKeys], scratch
  float* largest;  // [group] largest score
  float* total;    // [group] sum of exp(score - largest)
  float* mixed;    // [group, value_width] sum of exp(score - largest) * value
};

// One attention layer: H query heads in groups over K key/value heads.
struct Attention {
  int tokens, heads, kv_heads, width, value_width;
  const float* query;         // [tokens, heads, width]
  const void *keys, *values;  // [kv_heads, .., width], [kv_heads, .., value_width], rows one behind the other
  int64_t key_stride, value_stride;  // elements from one head to the next
  bool is_bfloat16;
  int offset;          // query t stands at key offset + t and sees the keys up to it
  int window;          // and of them only so many before it; negative: all
  float factor;
  const float* sinks;  // [heads] logits without a value, or null
  float* out;          // [tokens, heads, value_width]
};

// From the rows of a fused projection to what attention reads: queries and keys rotated, values scaled, all rounded to the
// dtype as torch would. qkv [tokens, (H + K) width + K value_width]; cos, sin [tokens, half]; query float32 [tokens, H, width];
// keys, values [K, tokens, width or value_width] in the dtype, rows of a head one behind the other.
struct Rotation {
  const void* qkv;
  bool is_bfloat16;
  int tokens, heads, kv_heads, width, value_width, half;
  const float *cos, *sin;
  float value_scale;
  float* query;
  void *keys, *values;
  int64_t key_stride, value_stride;  // cells from one head to the next
};

void rotate(const Rotation& r);

}  // namespace mimo
