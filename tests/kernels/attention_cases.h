// The cases of attention that every device must get right.
#pragma once

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/ops/attention.h"

namespace sluice::kernels::testing {

/// A segment of one row decodes, of more is a prompt's.
inline PagedSegment segment(std::int64_t first_kv, std::int32_t num_rows, std::int32_t full_prefix = 0) {
  return {.first_kv = first_kv,
          .num_rows = num_rows,
          .full_prefix = full_prefix,
          .kind = num_rows == 1 ? SegmentKind::kDecode : SegmentKind::kPrompt};
}
/// What a cut may leave of a prompt.
inline PagedSegment prompt_row(std::int64_t first_kv, std::int32_t full_prefix = 0) {
  return {.first_kv = first_kv, .num_rows = 1, .full_prefix = full_prefix};
}

struct AttentionCase {
  const char* name;
  std::int64_t num_heads, num_kv_heads, head_dim;
  KvFormat format;
  std::vector<PagedSegment> segments;
  std::int64_t padding = 0;
};

inline std::string name_of_case(const ::testing::TestParamInfo<AttentionCase>& test) {
  return test.param.name;
}

inline const std::vector<AttentionCase>& attention_cases() {
  constexpr KvFormat kF16 = KvFormat::kF16;
  constexpr KvFormat kF32 = KvFormat::kF32;
  static const std::vector<AttentionCase> cases = {
      {"first_token", 1, 1, 8, kF16, {segment(0, 1)}},
      {"decode_at_page_edges",
       2,
       2,
       64,
       kF16,
       {segment(62, 1), segment(63, 1), segment(64, 1), segment(65, 1)}},
      {"decode_fp32", 4, 4, 64, kF32, {segment(200, 1), segment(0, 1), segment(127, 1)}},
      {"decode_head_dim_80", 3, 3, 80, kF16, {segment(100, 1), segment(191, 1)}},
      {"decode_head_dim_256", 1, 1, 256, kF16, {segment(130, 1)}},
      {"decode_grouped", 8, 2, 128, kF16, {segment(129, 1), segment(64, 1), segment(5, 1)}},
      {"decode_grouped_by_8", 8, 1, 32, kF16, {segment(140, 1)}},
      {"decode_grouped_by_3", 6, 2, 40, kF32, {segment(77, 1)}, 3},
      {"prefill_one_page", 2, 2, 16, kF16, {segment(0, 64)}},
      {"prefill_63", 2, 1, 24, kF16, {segment(0, 63)}},
      {"prefill_65", 2, 1, 72, kF16, {segment(0, 65)}, 5},
      {"prefill_pages", 2, 2, 64, kF16, {segment(0, 200)}},
      {"prefill_fp32", 3, 1, 48, kF32, {segment(0, 130)}},
      {"chunk_of_a_prompt", 2, 2, 128, kF16, {segment(100, 90)}},
      {"prompt_of_one_row", 2, 1, 64, kF16, {prompt_row(0), prompt_row(0, 70)}},
      {"chunks_of_one_row",
       4,
       2,
       80,
       kF16,
       {prompt_row(63), segment(63, 1), prompt_row(64), prompt_row(700)}},
      {"chunks_of_one_row_fp32", 2, 2, 24, kF32, {prompt_row(130), segment(130, 1)}},
      {"chunk_of_two_rows", 2, 2, 8, kF16, {segment(63, 2)}},
      {"chunk_of_three_rows", 4, 4, 88, kF16, {segment(126, 3)}},
      {"full_prefix", 2, 2, 64, kF16, {segment(0, 100, 80), segment(0, 70, 70), segment(20, 10, 65)}},
      {"full_prefix_decode", 2, 1, 64, kF16, {segment(90, 1, 70), segment(3, 1, 130)}},
      {"mixed",
       4,
       2,
       64,
       kF16,
       {segment(300, 1), segment(0, 70), segment(50, 1), segment(64, 20), segment(10, 5, 12)}},
      {"empty_segments", 2, 2, 16, kF16, {segment(0, 0), segment(9, 1), segment(64, 0)}},
      {"no_segments", 2, 2, 16, kF16, {}},
  };
  return cases;
}

}  // namespace sluice::kernels::testing
