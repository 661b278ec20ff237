#include <fmt/format.h>

#include "tests/fakes/checkpoint_bytes.h"
#include "tests/fakes/checkpoint_cases.h"

namespace sluice::testing {

std::vector<ParserCase> npy_cases() {
  const auto with = [](std::string_view descr, std::string_view order, std::string_view shape,
                       std::size_t bytes) {
    return npy_bytes(
        fmt::format("{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}  \n", descr, order, shape),
        std::string(bytes, 'x'));
  };
  const auto header = [](std::string_view text) { return npy_bytes(text, "xxxx"); };
  std::string many = "(";
  for (int i = 0; i < 33; ++i) many += "1, ";
  const char* const plain = "{'descr': '<f2', 'fortran_order': False, 'shape': (2,)}";
  return {
      {"matrix", with("'<f2'", "False", "(2, 3)", 12)},
      {"vector_v2", npy_bytes(plain, "xxxx", 2)},
      {"scalar", with("'<f4'", "False", "()", 4)},
      {"fortran_vector", with("\"|i1\"", "True", "(4,)", 4)},
      {"empty", with("'<f8'", "False", "(0, 5)", 0)},
      {"boolean_array", with("'|b1'", "False", "(4)", 4)},

      {"no_magic", "NUMPY", Code::kCorrupt, "offset 0: no .npy file"},
      {"no_version", "\x93NUMPY", Code::kCorrupt, "offset 6: 2 bytes are needed here, the file has 6"},
      {"version_9", npy_bytes(plain, "xxxx", 9), Code::kUnsupported, "npy format version 9"},
      {"no_length", std::string("\x93NUMPY\x01\x00", 8), Code::kCorrupt, "offset 8: 2 bytes are needed"},
      {"length_too_large", std::string("\x93NUMPY\x02\x00", 8) + little_endian(65'537, 4), Code::kCorrupt,
       "offset 8: a header of 65537 bytes, the limit is 65536"},
      {"header_beyond_file", std::string("\x93NUMPY\x01\x00", 8) + little_endian(500, 2), Code::kCorrupt,
       "offset 10: 500 bytes are needed"},
      {"no_dictionary", header("[]"), Code::kCorrupt, "offset 10: npy header: '{' expected"},
      {"header_empty", header(""), Code::kCorrupt, "'{' expected"},
      {"key_no_string", header("{descr"), Code::kCorrupt, "offset 11: npy header: a string expected"},
      {"key_without_end", header("{'descr"), Code::kCorrupt, "a string without end"},
      {"no_colon", header("{'descr' '<f2'"), Code::kCorrupt, "':' expected"},
      {"descr_number", header("{'descr': 7"), Code::kCorrupt, "a string expected"},
      {"order_number", header("{'fortran_order': 0"), Code::kCorrupt, "True or False expected"},
      {"shape_list", header("{'shape': [2]"), Code::kCorrupt, "'(' expected"},
      {"shape_word", header("{'shape': (two,)"), Code::kCorrupt, "a size between 0 and 2^63 expected"},
      {"shape_negative", header("{'shape': (-1,)"), Code::kCorrupt, "a size between 0 and 2^63 expected"},
      {"shape_huge", header("{'shape': (9223372036854775808,)"), Code::kCorrupt, "a size between 0 and 2^63"},
      {"shape_open", header("{'shape': (2 3)"), Code::kCorrupt, "')' expected"},
      {"rank", header("{'shape': " + many), Code::kCorrupt, "more than 32 dimensions"},
      {"dictionary_open", header("{'descr': '<f2' 'shape'"), Code::kCorrupt, "'}' expected"},
      {"key_unknown", header("{'order': 'C'}"), Code::kCorrupt, "key 'order' is unknown or appears twice"},
      {"key_twice", header("{'descr': '<f2', 'descr': '<f2'}"), Code::kCorrupt,
       "key 'descr' is unknown or appears"},
      {"text_behind", header(std::string(plain) + "}"), Code::kCorrupt, "text behind the dictionary"},
      {"key_missing", header("{'descr': '<f2', 'shape': (2,)}"), Code::kCorrupt,
       "needs descr, fortran_order and shape"},
      {"structured", header("{'descr': [('a', '<f2')]"), Code::kUnsupported, "a structured array"},
      {"void_2", with("'<V2'", "False", "(2,)", 4), Code::kUnsupported,
       "does not say what the two bytes are"},
      {"pickled_objects", with("'|O'", "False", "(2,)", 4), Code::kUnsupported, "descr '|O'"},
      {"big_endian", with("'>f2'", "False", "(2,)", 4), Code::kUnsupported, "descr '>f2'"},
      {"fortran_matrix", with("'<f2'", "True", "(2, 1)", 4), Code::kUnsupported, "fortran_order is True"},
      {"shape_overflow", with("'<f2'", "False", "(4294967296, 4294967296)", 4), Code::kCorrupt, "overflows"},
      {"data_short", with("'<f2'", "False", "(3,)", 4), Code::kCorrupt,
       "tensor 'weight', f16 [3], has 6 bytes, the file has 4 left"},
      {"data_long", with("'<f2'", "False", "(1,)", 4), Code::kCorrupt, "has 2 bytes, the file has 4 left"},
  };
}

}  // namespace sluice::testing
