#include <fmt/format.h>

#include "tests/fakes/checkpoint_bytes.h"
#include "tests/fakes/checkpoint_cases.h"

namespace sluice::testing {

std::vector<ParserCase> safetensors_cases() {
  const std::string four(4, 'x');
  const std::string eight(8, 'x');
  // A header of one tensor with these fields.
  const auto one = [](std::string_view fields) {
    return safetensors_bytes(fmt::format(R"({{"t":{{{}}}}})", fields), "xxxx");
  };
  const auto many = [](std::string_view item) {
    std::string list(item);
    for (int i = 0; i < 32; ++i) list += fmt::format(",{}", item);
    return list;
  };
  return {
      {"two_tensors",
       safetensors_bytes(
           R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},)"
           R"("b":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}   )",
           eight)},
      {"no_tensors", safetensors_bytes("{}")},
      {"scalar_and_empty", safetensors_bytes(R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                                             R"("e":{"data_offsets":[2,2],"shape":[0,7],"dtype":"F64"}})",
                                             four)},
      {"all_types", safetensors_bytes(R"({"a":{"dtype":"F64","shape":[0],"data_offsets":[0,0]},)"
                                      R"("b":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},)"
                                      R"("c":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                                      R"("d":{"dtype":"I16","shape":[0],"data_offsets":[0,0]},)"
                                      R"("e":{"dtype":"I32","shape":[0],"data_offsets":[0,0]},)"
                                      R"("f":{"dtype":"I64","shape":[0],"data_offsets":[0,0]},)"
                                      R"("g":{"dtype":"BOOL","shape":[0],"data_offsets":[0,0]}})")},

      {"no_length", "abc", Code::kCorrupt, "offset 0: 8 bytes are needed here, the file has 3"},
      {"header_too_large", little_endian(100'000'001, 8), Code::kCorrupt,
       "offset 0: a header of 100000001 bytes, the limit is 100000000"},
      {"header_beyond_file", little_endian(99, 8) + "{}", Code::kCorrupt, "offset 8: 99 bytes are needed"},
      {"header_empty", safetensors_bytes(""), Code::kCorrupt, "offset 8: the header does not begin with '{'"},
      {"header_no_object", safetensors_bytes("[]"), Code::kCorrupt,
       "offset 8: the header does not begin with '{'"},
      {"header_no_json",
       safetensors_bytes(R"({"t":)"
                         "{]"),
       Code::kCorrupt, "offset 14: the header is not valid JSON"},
      {"header_text_behind", safetensors_bytes("{} x"), Code::kCorrupt,
       "offset 11: the header is not valid JSON"},
      {"number_overflow", one(R"("shape":[1e999])"), Code::kCorrupt, "the header is not valid JSON"},

      {"nested_object", one(R"("shape":{})"), Code::kCorrupt,
       "tensor 't': an object where a value is expected"},
      {"tensor_twice",
       safetensors_bytes(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":{}})", four),
       Code::kCorrupt, "tensor 't' appears twice"},
      {"unknown_field", one(R"("type":"F16")"), Code::kCorrupt, "tensor 't': unknown field 'type'"},
      {"dtype_twice", one(R"("dtype":"F16","dtype":"F16")"), Code::kCorrupt, "'dtype' appears twice"},
      {"shape_twice", one(R"("shape":[],"shape":[])"), Code::kCorrupt, "'shape' appears twice"},
      {"offsets_twice", one(R"("data_offsets":[],"data_offsets":[])"), Code::kCorrupt,
       "'data_offsets' appears twice"},
      {"string_as_tensor", safetensors_bytes(R"({"t":"x"})"), Code::kCorrupt,
       "tensor 't': a string where none belongs"},
      {"string_as_shape", one(R"("shape":"x")"), Code::kCorrupt, "tensor 't': a string where none belongs"},
      {"string_in_shape", one(R"("shape":["x"])"), Code::kCorrupt, "tensor 't': a string where none belongs"},
      {"dtype_unknown", one(R"("dtype":"F8_E4M3")"), Code::kUnsupported, "tensor 't' has dtype 'F8_E4M3'"},
      {"array_as_tensor", safetensors_bytes(R"({"t":[]})"), Code::kCorrupt,
       "tensor 't': an array where none belongs"},
      {"array_as_dtype", one(R"("dtype":[])"), Code::kCorrupt, "tensor 't': an array where none belongs"},
      {"array_in_shape", one(R"("shape":[[1]])"), Code::kCorrupt, "tensor 't': an array where none belongs"},
      {"number_as_shape", one(R"("shape":4)"), Code::kCorrupt, "tensor 't': a number where none belongs"},
      {"number_as_tensor", safetensors_bytes(R"({"t":1})"), Code::kCorrupt, "a number where none belongs"},
      {"number_in_metadata", safetensors_bytes(R"({"__metadata__":{"a":1}})"), Code::kCorrupt,
       "tensor '__metadata__': a number where none belongs"},
      {"size_beyond_63_bits", one(R"("shape":[9223372036854775808])"), Code::kCorrupt,
       "9223372036854775808 in 'shape' does not fit in 63 bits"},
      {"rank", one(fmt::format(R"("shape":[{}])", many("1"))), Code::kCorrupt,
       "more than 32 numbers in 'shape'"},
      {"negative", one(R"("shape":[-1])"), Code::kCorrupt, "-1 is negative"},
      {"fraction", one(R"("data_offsets":[0,4.5])"), Code::kCorrupt, "4.5 is no 63-bit integer"},
      {"null", one(R"("dtype":null)"), Code::kCorrupt, "null where none belongs"},
      {"boolean", one(R"("dtype":true)"), Code::kCorrupt, "a boolean where none belongs"},
      {"field_missing", one(R"("dtype":"F16","shape":[2])"), Code::kCorrupt,
       "needs dtype, shape and data_offsets"},
      {"three_offsets", one(R"("dtype":"F16","shape":[2],"data_offsets":[0,4,8])"), Code::kCorrupt,
       "data_offsets has 3 numbers, must have 2"},
      {"shape_overflow", one(R"("dtype":"F16","shape":[4294967296,4294967296],"data_offsets":[0,4])"),
       Code::kCorrupt, "shape [4294967296, 4294967296] overflows"},
      {"bytes_overflow", one(R"("dtype":"F64","shape":[4611686018427387904],"data_offsets":[0,4])"),
       Code::kCorrupt, "overflows"},
      {"offsets_too_short", one(R"("dtype":"F16","shape":[3],"data_offsets":[0,4])"), Code::kCorrupt,
       "data_offsets [0, 4] do not hold the 6 bytes of f16 [3]"},
      {"offsets_backwards", one(R"("dtype":"F16","shape":[2],"data_offsets":[4,0])"), Code::kCorrupt,
       "data_offsets [4, 0] do not hold the 4 bytes of f16 [2]"},
      {"truncated", one(R"("dtype":"F16","shape":[50],"data_offsets":[0,100])"), Code::kCorrupt,
       "the file ends here, tensor 't' needs it to reach 165; 96 bytes are missing"},
      {"overlap",
       safetensors_bytes(R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[2,6]},)"
                         R"("b":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})",
                         eight),
       Code::kCorrupt, "tensors 'b' and 'a' overlap"},
  };
}

}  // namespace sluice::testing
