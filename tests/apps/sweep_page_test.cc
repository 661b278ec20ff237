// The report in a headless Chromium: every chart is drawn, nothing is written to the console. Skipped where
// no Chromium is found; SLUICE_CHROMIUM names one.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <sys/wait.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/apps/run_command.h"
#include "tests/apps/temp_dir.h"

namespace sluice::apps {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::optional<std::string> find_chromium() {
  if (const char* stated = std::getenv("SLUICE_CHROMIUM")) return stated;
  for (const char* name : {"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}) {
    for (const char* folder : {"/usr/bin/", "/usr/local/bin/", "/snap/bin/"}) {
      if (std::filesystem::exists(std::string(folder) + name)) return std::string(folder) + name;
    }
  }
  return std::nullopt;
}

/// Looks at every canvas after the page is loaded, whatever the page says of itself.
constexpr const char* kProbe = R"(<script>
addEventListener("load", () => {
  const found = {};
  for (const canvas of document.querySelectorAll("canvas")) {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width || 1, canvas.height || 1).data;
    const colours = new Set();
    for (let i = 0; i < pixels.length; i += 4) {
      if (pixels[i + 3] > 0) colours.add(pixels[i] << 16 | pixels[i + 1] << 8 | pixels[i + 2]);
    }
    found[canvas.id] = {drawn: Number(canvas.dataset.drawn || -1), colours: colours.size,
                        hidden: canvas.closest("section").hidden};
  }
  const probe = document.createElement("pre");
  probe.id = "probe";
  probe.textContent = JSON.stringify({canvases: found, rows: document.querySelectorAll("#rows tr").length,
                                      legend: document.querySelectorAll("#legend span").length,
                                      ...(window.afterLoad ? afterLoad() : {})});
  document.body.append(probe);
});
</script>)";

struct Rendered {
  json probe;
  std::string console;
};

Rendered render(const std::string& chromium, const TempDir& dir, std::string page,
                const std::string& script = {}) {
  page.insert(page.rfind("</body>"), "<script>{" + script + "}</script>" + kProbe);
  write_text(dir / "page.html", page);
  const std::string command = fmt::format(
      "'{}' --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir='{}' "
      "--enable-logging=stderr --window-size=1440,2400 --virtual-time-budget=5000 --dump-dom 'file://{}' > "
      "'{}' 2> '{}'",
      chromium, dir / "profile", dir / "page.html", dir / "dom", dir / "err");
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 0) << read_text(dir / "err");
  const std::string dom = read_text(dir / "dom");
  const std::string open = "<pre id=\"probe\">";
  const std::size_t begin = dom.find(open);
  Rendered rendered;
  if (begin == std::string::npos) {
    ADD_FAILURE() << "the page did not load: " << read_text(dir / "err");
    return rendered;
  }
  const std::size_t end = dom.find("</pre>", begin);
  rendered.probe = json::parse(dom.substr(begin + open.size(), end - begin - open.size()));
  std::istringstream err(read_text(dir / "err"));
  for (std::string line; std::getline(err, line);) {
    if (line.find("CONSOLE") != std::string::npos) rendered.console += line + "\n";
  }
  return rendered;
}

/// A sweep's output with `n` points, the first of which have measured figures.
std::string results(int n, int measured) {
  std::string text =
      R"({"kind":"sweep","title":"Page","description":"d","mode":"run","hardware":{},"points":)" +
      std::to_string(n) + R"(,"points_hash":"0","version":"0","commit":"c"})" + "\n";
  for (int i = 0; i < n; ++i) {
    const double rate = 1 + 7.0 * i * i;
    json figures = {
        {"tokens_per_sec", rate},
        {"total_sec", 10.0},
        {"prefill_sec", 2.0},
        {"decode_sec", 8.0},
        {"latency_sec", 1 + 3.0 * i},
        {"lanes",
         {{{"name", "gpu"}, {"busy_sec", 5.0 + i % 5}}, {{"name", "h2d_urgent"}, {"busy_sec", 1.0}}}},
        {"memory_bytes", {{"gpu", (i + 1) << 20}, {"cpu", 0}, {"disk", 0}}}};
    json line = {{"kind", "point"},
                 {"id", std::to_string(i)},
                 {"number", i},
                 {"sweep", "s"},
                 {"flags", {{"model", i % 2 == 0 ? "random:a" : "random:b"}, {"gen-len", std::to_string(i)}}},
                 {"status", "ok"},
                 {"placement",
                  {{"percent", "1"}, {"gpu_batch_size", 1}, {"num_gpu_batches", 1}, {"cpu_attention", true}}},
                 {"predicted", figures}};
    if (i < measured) {
      figures["tokens_per_sec"] = rate * (i % 4 == 0 ? 1.5 : 1.05);
      line["measured"] = figures;
      line["error_percent"] = 5;
    }
    text += line.dump() + "\n";
  }
  return text +
         R"({"kind":"point","id":"r","number":9999,"sweep":"s","flags":{},"status":"refused","message":"big"})" +
         "\n";
}

class SweepPage : public ::testing::TestWithParam<std::pair<int, int>> {};

TEST_P(SweepPage, DrawsEveryChart) {
  const auto chromium = find_chromium();
  if (!chromium) GTEST_SKIP() << "no Chromium here: install chromium, or name one in SLUICE_CHROMIUM";
  const auto [n, measured] = GetParam();
  const TempDir dir;
  write_text(dir / "out.jsonl", results(n, measured));
  ASSERT_EQ(run({"sweep", "--report-only", dir / "out.jsonl"}).status, 0);
  const Rendered rendered = render(*chromium, dir, read_text(dir / "out.html"));
  EXPECT_EQ(rendered.console, "");
  ASSERT_TRUE(rendered.probe.is_object());
  EXPECT_EQ(rendered.probe["rows"], n + 1) << "refused points are in the table";
  for (const char* id : {"throughput", "latency", "pareto"}) {
    const json& canvas = rendered.probe["canvases"][id];
    EXPECT_EQ(canvas["drawn"], n) << id;
    EXPECT_GT(canvas["colours"].get<int>(), 8) << id;
    EXPECT_FALSE(canvas["hidden"].get<bool>()) << id;
  }
  const json& compared = rendered.probe["canvases"]["compared"];
  EXPECT_EQ(compared["hidden"], measured == 0);
  EXPECT_EQ(compared["drawn"], measured == 0 ? -1 : measured);
  const json& lanes = rendered.probe["canvases"]["lanes"];
  EXPECT_EQ(lanes["drawn"], 2 * std::min(n, 24)) << "two lanes";
  EXPECT_GT(lanes["colours"].get<int>(), 8);
}

INSTANTIATE_TEST_SUITE_P(Sizes, SweepPage,
                         ::testing::Values(std::pair(1, 0), std::pair(5, 5), std::pair(500, 40)));

TEST(SweepPageInput, FiltersAndSorts) {
  const auto chromium = find_chromium();
  if (!chromium) GTEST_SKIP() << "no Chromium here: install chromium, or name one in SLUICE_CHROMIUM";
  const TempDir dir;
  write_text(dir / "out.jsonl", results(20, 0));
  ASSERT_EQ(run({"sweep", "--report-only", dir / "out.jsonl"}).status, 0);
  const Rendered rendered = render(*chromium, dir, read_text(dir / "out.html"), R"(
    const filter = document.getElementById("filter");
    filter.value = "model=random:a ok";
    filter.dispatchEvent(new Event("input"));
    const columns = [...document.querySelectorAll("#head th")];
    const column = columns.find((th) => th.textContent.startsWith("predicted"));
    column.click();
    window.afterLoad = () => ({first: document.querySelector("#rows td").textContent,
                               sort: document.querySelector("#head [aria-sort]").textContent});)");
  EXPECT_EQ(rendered.console, "");
  EXPECT_EQ(rendered.probe["rows"], 10) << "every other point has model a";
  EXPECT_EQ(rendered.probe["canvases"]["throughput"]["drawn"], 10);
  EXPECT_EQ(rendered.probe["first"], "19") << "the fastest of them first";
  EXPECT_THAT(rendered.probe["sort"].get<std::string>(), HasSubstr("predicted"));
}

TEST(SweepPageInput, AnErrorInThePageIsSeen) {
  const auto chromium = find_chromium();
  if (!chromium) GTEST_SKIP() << "no Chromium here: install chromium, or name one in SLUICE_CHROMIUM";
  const TempDir dir;
  write_text(dir / "out.jsonl", results(3, 0));
  ASSERT_EQ(run({"sweep", "--report-only", dir / "out.jsonl"}).status, 0);
  const Rendered rendered =
      render(*chromium, dir, read_text(dir / "out.html"), "throw new Error('injected');");
  EXPECT_THAT(rendered.console, HasSubstr("injected"));
}

}  // namespace
}  // namespace sluice::apps
