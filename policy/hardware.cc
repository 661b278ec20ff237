#include "policy/hardware.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <utility>

#include <fmt/format.h>

#include "core/config/builtin_models.h"
#include "core/config/config.h"
#include "core/error.h"

namespace sluice::policy {
namespace {

/// The node of a dotted key, or null.
const ConfigNode* node_of(const ConfigNode& tree, std::string_view key) {
  const ConfigNode* node = &tree;
  while (node != nullptr && !key.empty()) {
    const std::size_t dot = key.find('.');
    node = node->find(key.substr(0, dot));
    key = dot == key.npos ? std::string_view() : key.substr(dot + 1);
  }
  return node;
}

/// Finds what a reader of fields cannot: tables without rows, and rows without a figure that has no default.
class TableCheck {
 public:
  TableCheck(const ConfigNode& tree, ConfigProblems& problems) : tree_(tree), problems_(problems) {}

  /// `needed`: keys of each row.
  void rows(const std::string& key, std::initializer_list<std::string_view> needed,
            bool may_be_empty = false) {
    const ConfigNode* table = node_of(tree_, key);
    if (table == nullptr || table->kind != ConfigNode::Kind::kList) return;
    if (table->children.empty() && !may_be_empty) {
      problems_.add(table->line, key, "a table without rows", "add a row, or leave the key out");
    }
    for (std::size_t i = 0; i < table->children.size(); ++i) {
      const ConfigNode& row = table->children[i];
      if (row.kind != ConfigNode::Kind::kMap) continue;  // refused already
      for (const std::string_view name : needed) {
        if (row.find(name) != nullptr) continue;
        problems_.add(row.line, fmt::format("{}[{}].{}", key, i, name), "missing", "add it to this row");
      }
    }
  }

  void has_dense(const std::vector<ProductRate>& products) {
    const ConfigNode* table = node_of(tree_, "gpu.products");
    const bool any = std::any_of(products.begin(), products.end(), [](const ProductRate& rate) {
      return rate.format == Encoding::kDense && rate.kernel == ProductKernel::kFused;
    });
    if (table == nullptr || table->children.empty() || any) return;
    problems_.add(table->line, "gpu.products", "no row for dense weights",
                  "add one: embedding and head are dense in every model");
  }

  /// Rows for any matrix beside rows for one of a size would never count.
  void sizes_agree(const std::vector<ProductRate>& products) {
    const ConfigNode* table = node_of(tree_, "gpu.products");
    for (std::size_t i = 0; table != nullptr && i < table->children.size() && i < products.size(); ++i) {
      const ProductRate& row = products[i];
      const auto has_size = [&](const ProductRate& other) {
        return other.format == row.format && other.kernel == row.kernel && other.million_weights > 0;
      };
      if (row.million_weights > 0 || std::ranges::none_of(products, has_size)) continue;
      problems_.add(table->children[i].line, fmt::format("gpu.products[{}].million_weights", i),
                    "missing, though other rows of its format and kernel have one",
                    "give it to all of them or to none");
    }
  }

  void lanes_differ(const std::vector<LaneBeside>& beside) {
    const ConfigNode* table = node_of(tree_, "beside");
    for (std::size_t i = 0; table != nullptr && i < table->children.size() && i < beside.size(); ++i) {
      const ConfigNode& row = table->children[i];
      const ConfigNode* lane = row.find("lane");
      const ConfigNode* other = row.find("other");
      if (lane == nullptr || other == nullptr || lane->scalar != other->scalar) continue;
      problems_.add(row.line, fmt::format("beside[{}]", i), "lane and other are the same", "name two lanes");
    }
  }

 private:
  const ConfigNode& tree_;
  ConfigProblems& problems_;
};

/// Rows of tables are written on one line each; HARDWARE.md explains their fields.
void drop_comments_of_rows(ConfigNode& node, bool in_row = false) {
  if (in_row) node.comment.clear();
  for (ConfigNode& child : node.children) {
    drop_comments_of_rows(child, in_row || node.kind == ConfigNode::Kind::kList);
  }
}

}  // namespace

double disk_bytes_per_sec(const std::vector<DiskRate>& rows) {
  SLUICE_ASSERT(!rows.empty());
  const auto distance = [](const DiskRate& row) {
    return std::pair(std::abs(std::log(row.piece_kib / kDiskPieceKib)),
                     std::abs(std::log(static_cast<double>(row.queue_depth) / kDiskQueueDepth)));
  };
  const auto nearest = std::min_element(rows.begin(), rows.end(), [&](const DiskRate& a, const DiskRate& b) {
    return distance(a) < distance(b);
  });
  return 1e9 * nearest->gb_per_sec;
}

ReadProfile parse_hardware(std::string_view yaml, const std::string& file_name) {
  ConfigProblems problems;
  ReadProfile read;
  const std::optional<ConfigNode> tree = sluice::detail::parse_layer(yaml, file_name, problems);
  if (tree) {
    sluice::detail::read_struct(ConfigSite{*tree, "", problems}, read.profile);
    TableCheck check(*tree, problems);
    check.rows("link.h2d", {"piece_kib", "gb_per_sec"});
    check.rows("link.d2h", {"piece_kib", "gb_per_sec"});
    check.rows("gpu.products", {"rows", "tflop_per_sec"});
    check.has_dense(read.profile.gpu.products);
    check.sizes_agree(read.profile.gpu.products);
    check.rows("cpu.attention", {"threads", "gb_per_sec"});
    check.rows("disk.read", {"gb_per_sec"});
    check.rows("disk.write", {"gb_per_sec"});
    check.rows("beside", {"lane", "other", "share"}, /*may_be_empty=*/true);
    check.lanes_differ(read.profile.beside);
    check.rows("beside_attention", {"threads"}, /*may_be_empty=*/true);
  }
  problems.throw_if_any();
  read.defaulted = missing_fields(*tree, read.profile);
  return read;
}

std::optional<HardwareProfile> find_builtin_hardware(std::string_view name) {
  for (const sluice::detail::EmbeddedText& file : sluice::detail::builtin_hardware_texts()) {
    if (file.name == name) return parse_hardware(file.text, fmt::format("built-in {}.yaml", name)).profile;
  }
  return std::nullopt;
}

std::vector<std::string> builtin_hardware_names() {
  std::vector<std::string> names;
  for (const sluice::detail::EmbeddedText& file : sluice::detail::builtin_hardware_texts()) {
    names.emplace_back(file.name);
  }
  return names;
}

std::string to_yaml(const HardwareProfile& profile) {
  HardwareProfile copy = profile;
  ConfigNode tree = value_node(copy);
  drop_comments_of_rows(tree);
  return sluice::detail::print_tree(tree);
}

}  // namespace sluice::policy
