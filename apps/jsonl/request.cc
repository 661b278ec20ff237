#include "apps/jsonl/request.h"

#include <cmath>
#include <limits>
#include <set>

#include <nlohmann/json.hpp>

#include "core/config/nearest.h"

namespace sluice::apps {
namespace {

using nlohmann::json;

/// A field's value is wrong: `problem` follows the field's name in the message.
[[noreturn]] void refuse(const std::string& problem, const std::string& fix) {
  throw Error(Code::kInvalidArgument, problem, fix);
}

std::int64_t read_integer(const json& value, std::int64_t least, std::int64_t most) {
  const std::string fix = fmt::format("give a whole number from {} to {}", least, most);
  if (!value.is_number_integer()) refuse(fmt::format("is {}, not a whole number", value.type_name()), fix);
  const bool too_large =
      value.is_number_unsigned() &&
      value.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (too_large || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most) {
    refuse(fmt::format("{} is out of range", value.dump()), fix);
  }
  return value.get<std::int64_t>();
}

std::int32_t read_int32(const json& value, std::int64_t least) {
  return static_cast<std::int32_t>(read_integer(value, least, std::numeric_limits<std::int32_t>::max()));
}

float read_float(const json& value, const std::string& fix, bool (*in_range)(double)) {
  if (!value.is_number()) refuse(fmt::format("is {}, not a number", value.type_name()), fix);
  const double number = value.get<double>();
  if (!in_range(number)) refuse(fmt::format("{} is out of range", value.dump()), fix);
  return static_cast<float>(number);
}

bool read_bool(const json& value) {
  if (!value.is_boolean())
    refuse(fmt::format("is {}, not true or false", value.type_name()), "give true or false");
  return value.get<bool>();
}

std::string read_stop(const json& value) {
  const std::string fix = "give a string that is not empty, or a list of such";
  if (!value.is_string()) refuse(fmt::format("holds {}, not a string", value.type_name()), fix);
  if (value.get_ref<const std::string&>().empty())
    refuse("holds an empty string, which would end every text", fix);
  return value.get<std::string>();
}

void require_array(const json& value) {
  if (!value.is_array())
    refuse(fmt::format("is {}, not a list", value.type_name()), "give a list of token ids");
}

std::vector<std::int32_t> read_ids(const json& value) {
  require_array(value);
  std::vector<std::int32_t> ids;
  ids.reserve(value.size());
  for (const json& id : value) {
    if (!id.is_number_integer()) {
      refuse(fmt::format("entry {} is {}, not a token id", ids.size(), id.type_name()),
             "give whole numbers from 0 to the vocabulary's size - 1");
    }
    ids.push_back(read_int32(id, 0));
  }
  return ids;
}

/// Strings and whole numbers may identify a request.
bool is_id(const json& value) { return value.is_string() || value.is_number_integer(); }

std::string id_text(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

struct Field {
  std::string_view name;
  void (*read)(const json& value, RequestLine& out);
};

constexpr Field kFields[] = {
    {"id",
     [](const json& v, RequestLine& out) {
       if (!is_id(v)) refuse(fmt::format("is {}", v.type_name()), "give a string or a whole number");
       out.id = id_text(v);
     }},
    {"prompt",
     [](const json& v, RequestLine& out) {
       if (!v.is_string())
         refuse(fmt::format("is {}, not a string", v.type_name()), "give text, or use prompt_ids");
       out.prompt = v.get<std::string>();
     }},
    {"prompt_ids",
     [](const json& v, RequestLine& out) {
       out.request.prompt_ids = read_ids(v);
       if (out.request.prompt_ids.empty())
         refuse("is empty", "give at least one token id, for example the bos id");
     }},
    {"max_new_tokens",
     [](const json& v, RequestLine& out) {
       out.request.max_new_tokens = read_integer(v, 0, std::numeric_limits<std::int32_t>::max());
     }},
    {"do_sample", [](const json& v, RequestLine& out) { out.request.sampling.do_sample = read_bool(v); }},
    {"temperature",
     [](const json& v, RequestLine& out) {
       out.request.sampling.temperature = read_float(v, "give a number from 0 (greedy) up", [](double x) {
         return x >= 0 && x <= static_cast<double>(std::numeric_limits<float>::max());
       });
     }},
    {"top_k", [](const json& v, RequestLine& out) { out.request.sampling.top_k = read_int32(v, 0); }},
    {"top_p",
     [](const json& v, RequestLine& out) {
       out.request.sampling.top_p = read_float(v, "give a number above 0, at most 1",
                                               [](double x) { return x <= 1 && static_cast<float>(x) > 0; });
     }},
    {"seed",
     [](const json& v, RequestLine& out) {
       if (v.is_number_unsigned()) {
         out.request.sampling.seed = v.get<std::uint64_t>();
       } else {
         out.request.sampling.seed =
             static_cast<std::uint64_t>(read_integer(v, 0, std::numeric_limits<std::int64_t>::max()));
       }
       out.has_seed = true;
     }},
    {"stop",
     [](const json& v, RequestLine& out) {
       out.request.stop.clear();
       if (v.is_array()) {
         for (const json& text : v) out.request.stop.push_back(read_stop(text));
       } else {
         out.request.stop.push_back(read_stop(v));
       }
     }},
    {"stop_ids", [](const json& v, RequestLine& out) { out.request.stop_ids = read_ids(v); }},
    {"ignore_eos", [](const json& v, RequestLine& out) { out.request.ignore_eos = read_bool(v); }},
    {"logprobs",
     [](const json& v, RequestLine& out) {
       out.request.num_top_logprobs = static_cast<std::int32_t>(read_integer(v, 0, kMaxTopLogprobs));
       out.request.want_logprobs = true;
     }},
    {"prompt_logprobs",
     [](const json& v, RequestLine& out) { out.request.want_prompt_logprobs = read_bool(v); }},
};

const Field* find_field(std::string_view name) {
  for (const Field& field : kFields) {
    if (field.name == name) return &field;
  }
  return nullptr;
}

std::string suggest_field(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Field& field : kFields) names.push_back(field.name);
  return suggest_name(name, names);
}

/// Parses the line and refuses repeated keys, of which a JSON library would silently keep the last.
json parse_object(std::string_view line) {
  std::set<std::string, std::less<>> keys;
  const auto refuse_repeated = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::key && depth == 1) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.insert(key).second) refuse(fmt::format("{}: is given twice", key), "keep one of the two");
    }
    return true;
  };
  json object;
  try {
    object = json::parse(line, refuse_repeated);
  } catch (const json::exception& e) {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: ...": the bracket is of no use, and
    // the line is ours.
    std::string_view text = e.what();
    if (const auto end = text.find("] "); text.starts_with('[') && end != text.npos)
      text.remove_prefix(end + 2);
    constexpr std::string_view kPlace = "parse error at line 1, ";
    if (text.starts_with(kPlace)) text.remove_prefix(kPlace.size());
    refuse(fmt::format("not valid JSON: {}", text), "write one JSON object per line, in UTF-8");
  }
  if (!object.is_object()) {
    refuse(fmt::format("the line is {}, not an object", object.type_name()),
           "write one JSON object per line, for example {\"prompt\": \"Hello\"}");
  }
  return object;
}

/// Runs `body` and puts `prefix` in front of the message of its Error.
template <class Body>
auto with_prefix(const std::string& prefix, const Body& body) {
  try {
    return body();
  } catch (const Error& e) {
    std::string what = e.what();
    if (!e.fix().empty()) what.resize(what.size() - e.fix().size() - 2);  // what() is "what; fix"
    throw Error(e.code(), prefix + what, e.fix());
  }
}

RequestLine read_fields(std::string_view line, const LinePosition& at, const offload::Request& defaults) {
  RequestLine result;
  result.id = std::to_string(at.request);
  result.request = defaults;
  result.request.prompt_ids.clear();
  const json object = parse_object(line);
  for (const auto& [key, value] : object.items()) {
    const Field* field = find_field(key);
    if (field == nullptr) {
      refuse(fmt::format("{}: unknown field", key), suggest_field(key));
    }
    if (value.is_null()) continue;
    with_prefix(key + ": ", [&, &v = value] { field->read(v, result); });
  }
  const bool has_ids = !result.request.prompt_ids.empty();
  if (has_ids && result.prompt) refuse("prompt and prompt_ids are both given", "keep one of the two");
  if (!has_ids && !result.prompt) refuse("no prompt", "give prompt or prompt_ids");
  return result;
}

}  // namespace

std::string id_of_line(std::string_view line, const LinePosition& at) {
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (object.is_object()) {
    if (const auto id = object.find("id"); id != object.end() && is_id(*id)) return id_text(*id);
  }
  return std::to_string(at.request);
}

RequestLine parse_request_line(std::string_view line, const LinePosition& at,
                               const offload::Request& defaults) {
  return with_prefix(fmt::format("{}:{}: ", at.file, at.line),
                     [&] { return read_fields(line, at, defaults); });
}

}  // namespace sluice::apps
