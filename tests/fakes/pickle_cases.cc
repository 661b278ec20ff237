#include "tests/fakes/checkpoint_bytes.h"
#include "tests/fakes/checkpoint_cases.h"

namespace sluice::testing {
namespace {

constexpr std::int64_t kTooLarge = std::int64_t{1} << 62;

/// {'t': value}, where `value` leaves one object on the stack.
template <class Value>
std::string dict_of(Value value) {
  PickleBytes pickle;
  pickle.proto().op("}").op("(").text("t");
  value(pickle);
  return pickle.op("u").stop().bytes();
}

PickleBytes& rebuild(PickleBytes& p) { return p.global("torch._utils", "_rebuild_tensor_v2").op("("); }
PickleBytes& half_storage(PickleBytes& p) { return p.storage("torch", "HalfStorage", "0", 32); }

}  // namespace

std::vector<ParserCase> pickle_cases() {
  using P = PickleBytes;
  const auto tensor = [](std::string_view type, std::int64_t numel, std::int64_t offset,
                         const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides) {
    return dict_of([&](P& p) { p.tensor(type, "0", numel, offset, shape, strides); });
  };
  const std::vector<std::int64_t> ones(33, 1);
  std::vector<ParserCase> cases = {
      {"tensor", tensor("HalfStorage", 32, 2, {2, 3}, {3, 1})},
      {"bfloat16", tensor("BFloat16Storage", 32, 0, {32}, {1})},
      {"strided", tensor("FloatStorage", 16, 0, {4, 4}, {1, 4})},
      {"broadcast", tensor("FloatStorage", 16, 3, {1000, 2}, {0, 1})},
      {"scalar", tensor("DoubleStorage", 8, 7, {}, {})},
      {"no_elements", tensor("HalfStorage", 32, 99, {0, 3}, {3, 1})},
      {"shape_of_torch_size", dict_of([](P& p) {
         half_storage(rebuild(p))
             .number(0)
             .global("torch", "Size")
             .op("(")
             .numbers({4})
             .op("tR")
             .numbers({1})
             .op("tR");
       })},
      {"parameter", dict_of([](P& p) {
         p.global("torch._utils", "_rebuild_parameter").op("(");
         p.tensor("HalfStorage", "0", 32, 0, {4}, {1}).op("\x88)tR");
       })},
      {"parameter_of_a_stranger", P().proto()
                                      .op("}(")
                                      .text("p")
                                      .global("torch._utils", "_rebuild_parameter")
                                      .op("((ltR")
                                      .text("t")
                                      .tensor("HalfStorage", "0", 32, 0, {4}, {1})
                                      .op("u.")
                                      .bytes()},
      {"from_type", dict_of([](P& p) {
         p.global("torch._tensor", "_rebuild_from_type_v2")
             .op("(")
             .global("torch._utils", "_rebuild_tensor_v2");
         p.global("torch", "Tensor").op("(");
         half_storage(p).number(0).numbers({4}).numbers({1}).op("t}tR");
       })},
      {"untyped_storage", dict_of([](P& p) {
         p.global("torch._utils", "_rebuild_tensor_v3")
             .op("(")
             .storage("torch.storage", "UntypedStorage", "0", 64);
         p.number(0).numbers({4}).numbers({1}).op("\x89)").global("torch", "bfloat16").op("tR");
       })},
      {"strangers_are_passed_over", P().proto()
                                        .op("}(")
                                        .text("step")
                                        .number(3)
                                        .number(4)
                                        .text("not a name")
                                        .text("args")
                                        .global("argparse", "Namespace")
                                        .op(")\x81}(")
                                        .text("lr")
                                        .op(std::string("G\0\0\0\0\0\0\0\0", 9))
                                        .op("ub")
                                        .text("rng")
                                        .global("numpy.core.multiarray", "_reconstruct")
                                        .op("(NtR")
                                        .op("]aNb")
                                        .text("t")
                                        .tensor("HalfStorage", "0", 32, 0, {4}, {1})
                                        .op("u.")
                                        .bytes()},
      {"wrapped_in_model", P().proto()
                               .op("}(")
                               .text("epoch")
                               .op("K\x07")
                               .text("model")
                               .op("}(")
                               .text("t")
                               .tensor("HalfStorage", "0", 32, 0, {4}, {1})
                               .op("uu.")
                               .bytes()},
      {"ordered_dict_with_metadata", P().proto()
                                         .global("collections", "OrderedDict")
                                         .op(")Rq\x01(")
                                         .text("t")
                                         .op("q\x02")
                                         .tensor("HalfStorage", "0", 32, 0, {4}, {1})
                                         .op("u}")
                                         .text("_metadata")
                                         .op("Nsb.")
                                         .bytes()},
      {"ordered_dict_of_pairs", P().proto()
                                    .global("collections", "OrderedDict")
                                    .op("(((")
                                    .text("t")
                                    .tensor("HalfStorage", "0", 32, 0, {4}, {1})
                                    .op("lltR.")
                                    .bytes()},
      {"protocol_4", P().op("\x80\x04\x95")
                         .op(little_endian(99, 8))
                         .op("}\x94(\x8C\x01t")
                         .op("\x8C\x0Ctorch._utils")
                         .op("\x8C\x12_rebuild_tensor_v2\x93\x94(")
                         .storage("torch", "HalfStorage", "0", 32)
                         .op(std::string("K\0", 2))
                         .op("K\x04\x85K\x01\x85tRu.")
                         .bytes()},
      {"rare_opcodes", P().proto()
                           .op("(")
                           .text("t")
                           .tensor("ShortStorage", "0", 32, 0, {4}, {1})
                           .op("U\x01s")
                           .op("T")
                           .op(little_endian(1, 4))
                           .op("sB")
                           .op(little_endian(1, 4))
                           .op("bC\x01")
                           .op("c")
                           .op("\x8D")
                           .op(little_endian(1, 8))
                           .op("u\x8E")
                           .op(little_endian(1, 8))
                           .op("bd")
                           .op("(N1(0N0\x8F(N\x90"
                               "0(N\x91"
                               "0)))\x92"
                               "0")
                           .op(std::string("M\0\1J\0\0\0\0", 8))
                           .op("00\x8A\x01\xFF"
                               "0\x8B")
                           .op(little_endian(9, 4))
                           .op("123456789")
                           .op("0NN\x86"
                               "0.")
                           .bytes()},

      {"empty_pickle", "", Code::kCorrupt, "offset 0: pickle: ends without STOP"},
      {"no_stop", "\x80\x02}", Code::kCorrupt, "offset 3: pickle: ends without STOP"},
      {"unknown_opcode", "\x80\x02i", Code::kCorrupt, "offset 2: pickle: unknown opcode 0x69"},
      {"argument_cut", "\x80\x02J1", Code::kCorrupt,
       "offset 2: pickle: 4 bytes are needed, the pickle ends before"},
      {"global_without_end",
       "\x80\x02"
       "ctorch\nSize",
       Code::kCorrupt, "a name without end"},
      {"string_too_long", P().op("X").op(little_endian(2 << 20, 4)).bytes(), Code::kCorrupt,
       "a string of 2097152 bytes, the limit is"},
      {"integer_too_long", P().op("\x8B").op(little_endian(2 << 20, 4)).bytes(), Code::kCorrupt,
       "an integer of 2097152 bytes"},
      {"stack_empty", "a", Code::kCorrupt, "the stack is empty"},
      {"stack_below_mark", "N(.", Code::kCorrupt, "the stack is empty"},
      {"append_to_nothing", "Na", Code::kCorrupt, "the stack is empty"},
      {"tuple_too_short", "N\x87", Code::kCorrupt, "3 objects are needed on the stack"},
      {"no_mark", "Nt", Code::kCorrupt, "no mark on the stack"},
      {"memo_unset", "h\x05", Code::kCorrupt, "memo 5 is not set"},
      {"memo_of_nothing", "q\x05", Code::kCorrupt, "the stack is empty"},
      {"append_to_none", "NNa", Code::kCorrupt, "items are appended to what is no list"},
      {"key_without_value", "}(Nu", Code::kCorrupt, "a key without value"},
      {"dict_key_without_value", "(Nd", Code::kCorrupt, "a key without value"},
      {"item_in_none", "NNNs", Code::kCorrupt, "keys are set in what is no dictionary"},
      {"call_without_tuple", P().global("torch", "Size").op("NR").bytes(), Code::kCorrupt,
       "the arguments of a call are no tuple"},
      {"ordered_dict_of_none", P().global("collections", "OrderedDict").op("(((Nllt").op("R").bytes(),
       Code::kCorrupt, "OrderedDict of what are no pairs"},
      {"global_of_none", "NN\x93", Code::kCorrupt, "the name of a global is no string"},
      {"global_too_long", P().text(std::string(600, 'm')).text(std::string(600, 'n')).op("\x93").bytes(),
       Code::kCorrupt, "the name of a global is too long"},
      {"state_of_none", "NNb", Code::kCorrupt, "a state is set on what is no object"},
      {"nested_too_deep", std::string(10'001, '('), Code::kCorrupt, "nested deeper than 10000 marks"},

      {"no_dictionary", "N.", Code::kUnsupported, "its pickle holds no dictionary of tensors"},
      {"parameter_without_arguments",
       dict_of([](P& p) { p.global("torch._utils", "_rebuild_parameter").op(")R"); }), Code::kCorrupt,
       "tensor 't': _rebuild_parameter without arguments"},
      {"from_type_too_short",
       dict_of([](P& p) { p.global("torch._tensor", "_rebuild_from_type_v2").op("N\x85R"); }), Code::kCorrupt,
       "tensor 't': _rebuild_from_type_v2 needs 3 arguments"},
      {"rebuild_too_short", dict_of([](P& p) { half_storage(rebuild(p)).op("tR"); }), Code::kCorrupt,
       "tensor 't': 1 arguments are too few"},
      {"storage_none", dict_of([](P& p) { rebuild(p).op("NNNNtR"); }), Code::kCorrupt,
       "tensor 't': its storage is not of the known form"},
      {"storage_id_none", dict_of([](P& p) { rebuild(p).op("NQNNNtR"); }), Code::kCorrupt,
       "its storage is not of the known form"},
      {"element_type_unknown", tensor("ComplexFloatStorage", 4, 0, {4}, {1}), Code::kUnsupported,
       "tensor 't' has an element type that Sluice does not know"},
      {"storage_size_negative", tensor("HalfStorage", -1, 0, {4}, {1}), Code::kCorrupt,
       "the size of its storage is no size"},
      {"storage_size_overflow", tensor("HalfStorage", kTooLarge, 0, {4}, {1}), Code::kCorrupt,
       "tensor 't': the size of its storage overflows"},
      {"storage_too_small", tensor("HalfStorage", 33, 0, {4}, {1}), Code::kCorrupt,
       "tensor 't': storage '0' must have 66 bytes, has 64"},
      {"offset_negative", tensor("HalfStorage", 32, -1, {4}, {1}), Code::kCorrupt, "its offset is no size"},
      {"shape_none", dict_of([](P& p) { half_storage(rebuild(p)).number(0).op("N)tR"); }), Code::kCorrupt,
       "tensor 't': its shape is no tuple"},
      {"shape_of_none", dict_of([](P& p) { half_storage(rebuild(p)).number(0).op("N\x85)tR"); }),
       Code::kCorrupt, "tensor 't': its shape is no size"},
      {"strides_none", dict_of([](P& p) { half_storage(rebuild(p)).number(0).op(")NtR"); }), Code::kCorrupt,
       "tensor 't': its strides is no tuple"},
      {"rank", tensor("HalfStorage", 32, 0, ones, ones), Code::kCorrupt, "more than 32 dimensions"},
      {"strides_too_few", tensor("HalfStorage", 32, 0, {2, 2}, {1}), Code::kCorrupt,
       "tensor 't': shape and strides differ in length"},
      {"shape_overflow", tensor("HalfStorage", 32, 0, {kTooLarge, 4}, {4, 1}), Code::kCorrupt, "overflows"},
      {"strides_overflow", tensor("HalfStorage", 32, 0, {4, 4}, {kTooLarge, 1}), Code::kCorrupt,
       "strides [4611686018427387904, 1] overflow"},
      {"beyond_storage", tensor("HalfStorage", 32, 30, {3}, {1}), Code::kCorrupt,
       "tensor 't': shape [3], strides [1], offset 30 reach element 32 of a storage of 32"},
  };
  return cases;
}

}  // namespace sluice::testing
