#include "core/config/yaml.h"

#include <algorithm>
#include <sstream>

#include <yaml-cpp/emitter.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include "core/checkpoint/printable.h"
#include "core/error.h"
#include "core/tokenizer/utf8.h"

namespace sluice {
namespace {

// Far above any configuration; a damaged or hostile file ends here and not in the allocator.
constexpr std::size_t kMaxBytes = 1 << 20;
constexpr std::size_t kMaxDepth = 64;

[[noreturn]] void refuse(const std::string& source, int line, std::string_view problem,
                         const std::string& fix) {
  throw Error(Code::kInvalidArgument, fmt::format("{}:{}: {}", source, line, problem), fix);
}

/// Builds the tree from the parser's events.
class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const std::string& source) : source_(source) {}

  ConfigNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    add(node_at(mark, ConfigNode::Kind::kNull));
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(source_, line_of(mark), "an alias (*name)", "write the value out");
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    // yaml-cpp's tag of a plain scalar is "?" (or none) and of a quoted one "!".
    if (!tag.empty() && tag != "?" && tag != "!") refuse_tag(mark, tag);
    ConfigNode node = node_at(mark, ConfigNode::Kind::kScalar);
    node.scalar = value;
    node.is_text = tag == "!";
    if (!node.is_text && (value.empty() || value == "~" || value == "null"))
      node.kind = ConfigNode::Kind::kNull;
    add(std::move(node));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, ConfigNode::Kind::kList);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, ConfigNode::Kind::kMap);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    ConfigNode node;
    bool has_key = false;  ///< of a map: keys.back() waits for its value
  };

  static int line_of(const YAML::Mark& mark) { return mark.line + 1; }

  static ConfigNode node_at(const YAML::Mark& mark, ConfigNode::Kind kind) {
    ConfigNode node;
    node.kind = kind;
    node.line = line_of(mark);
    return node;
  }

  [[noreturn]] void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    refuse(source_, line_of(mark), fmt::format("the tag '{}'", printable(tag)),
           "remove it; the key decides the type");
  }

  void open(const YAML::Mark& mark, const std::string& tag, ConfigNode::Kind kind) {
    if (!tag.empty() && tag != "?") refuse_tag(mark, tag);
    if (open_.size() >= kMaxDepth) {
      refuse(source_, line_of(mark), fmt::format("nested deeper than {} levels", kMaxDepth), "flatten it");
    }
    open_.push_back({node_at(mark, kind)});
  }

  void close() {
    ConfigNode node = std::move(open_.back().node);
    open_.pop_back();
    add(std::move(node));
  }

  void add(ConfigNode node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    auto& [parent, has_key] = open_.back();
    if (parent.kind == ConfigNode::Kind::kMap && !has_key) {
      if (node.kind != ConfigNode::Kind::kScalar)
        refuse(source_, node.line, "a key that is no text", "name the key");
      if (parent.find(node.scalar) != nullptr) {
        refuse(source_, node.line, fmt::format("{}: the key stands here twice", printable(node.scalar)),
               "remove one of them");
      }
      parent.keys.push_back(std::move(node.scalar));
      has_key = true;
      return;
    }
    parent.children.push_back(std::move(node));
    has_key = false;
  }

  const std::string& source_;
  ConfigNode root_;
  std::vector<Open> open_;
};

bool is_leaf(const ConfigNode& node) {
  return node.kind == ConfigNode::Kind::kScalar || node.kind == ConfigNode::Kind::kNull;
}

/// A map of a few values without comments, as the rows of a table are, takes one line.
bool is_row(const ConfigNode& node) {
  return node.kind == ConfigNode::Kind::kMap &&
         std::all_of(node.children.begin(), node.children.end(),
                     [](const ConfigNode& child) { return is_leaf(child) && child.comment.empty(); });
}

void emit(YAML::Emitter& out, const ConfigNode& node) {
  switch (node.kind) {
    case ConfigNode::Kind::kNull:
      out << YAML::Null;
      break;
    case ConfigNode::Kind::kScalar:
      if (node.is_text) out << YAML::DoubleQuoted;
      out << node.scalar;
      break;
    case ConfigNode::Kind::kList: {
      const bool is_flat = std::all_of(node.children.begin(), node.children.end(), is_leaf);
      out << (is_flat ? YAML::Flow : YAML::Block) << YAML::BeginSeq;
      for (const ConfigNode& child : node.children) {
        if (is_row(child)) out << YAML::Flow;
        emit(out, child);
      }
      out << YAML::EndSeq;
      break;
    }
    case ConfigNode::Kind::kMap:
      if (node.children.empty()) out << YAML::Flow;
      out << YAML::BeginMap;
      for (std::size_t i = 0; i < node.children.size(); ++i) {
        const ConfigNode& child = node.children[i];
        const bool is_table = child.kind == ConfigNode::Kind::kList &&
                              std::any_of(child.children.begin(), child.children.end(),
                                          [](const ConfigNode& row) { return !is_leaf(row); });
        const bool is_block = is_table || (child.kind == ConfigNode::Kind::kMap && !child.children.empty());
        out << YAML::Key << node.keys[i] << YAML::Value;
        if (is_block && !child.comment.empty()) out << YAML::Comment(child.comment);
        emit(out, child);
        if (!is_block && !child.comment.empty()) out << YAML::Comment(child.comment);
      }
      out << YAML::EndMap;
      break;
  }
}

}  // namespace

ConfigNode parse_yaml(std::string_view text, const std::string& source) {
  SLUICE_CHECK(
      text.size() <= kMaxBytes, Code::kInvalidArgument,
      fmt::format("{}: {} bytes of configuration, at most {} are read", source, text.size(), kMaxBytes),
      "check that this is the configuration file");
  // NUL is no YAML character, and to yaml-cpp it is a sign of UTF-16.
  const std::size_t readable = std::min(valid_utf8_prefix(text), text.find('\0'));
  if (readable < text.size()) {
    const auto line =
        1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(readable), '\n');
    refuse(source, static_cast<int>(line), fmt::format("byte {} is not UTF-8 text", readable),
           "save the file as UTF-8");
  }
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    TreeBuilder builder(source);
    parser.HandleNextDocument(builder);
    ConfigNode root = builder.take();
    TreeBuilder more(source);
    if (parser.HandleNextDocument(more)) {
      refuse(source, std::max(1, more.take().line), "a second document (---)", "put one document in a file");
    }
    return root;
  } catch (const YAML::Exception& e) {
    refuse(source, e.mark.is_null() ? 1 : e.mark.line + 1, printable(e.msg, 200), "mend the YAML there");
  }
}

std::string to_yaml(const ConfigNode& node) {
  YAML::Emitter out;
  emit(out, node);
  SLUICE_CHECK(out.good(), Code::kInternal, fmt::format("cannot write YAML: {}", out.GetLastError()),
               "please report this with the configuration");
  return std::string(out.c_str()) + "\n";
}

}  // namespace sluice
