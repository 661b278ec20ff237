"use strict";
// Draws the page from the JSON in #data: {"sweep": the header, "points": the lines}. Charts show what was measured
// where it was, else what was predicted; every canvas gets data-drawn, the number of points in it. One script:
// report_points.js, what a point has; report_charts.js; report.js, legend, table and the page.

const data = JSON.parse(document.getElementById("data").textContent);
const points = data.points;
const GIB = 2 ** 30;

// Okabe and Ito (2008): told apart by colour-blind people, too; lighter ones where the page is dark.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#8c6d1f", "#1c2430"];
const ON_DARK = ["#4ea5e0", "#e69f00", "#2dbd92", "#f0753a", "#a5dcff", "#e59ac4", "#c8a456", "#e6e9ee"];
const SHAPES = ["circle", "triangle", "rect", "rectRot", "star", "crossRot"];
const LANES = [["gpu", "#0072b2"], ["cpu", "#e69f00"], ["h2d", "#009e73"], ["d2h", "#cc79a7"],
  ["disk_read", "#d55e00"], ["disk_write", "#8c6d1f"]];
const MOST_BARS = 24;

const element = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const unique = (values) => [...new Set(values)];
const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

function digits(x) {
  if (x === undefined || x === null || !isFinite(x)) return "";
  const size = Math.abs(x);
  if (size >= 1000) return Math.round(x).toLocaleString("en");
  if (size < 0.001) return "0";
  return Number(x.toPrecision(3)).toString();
}

// ---- What a point has.

const figures = (p) => p.measured || p.predicted;
const speed = (p) => figures(p)?.tokens_per_sec;
const latency = (p) => figures(p)?.latency_sec;
const memory = (p, tier) => figures(p) && figures(p).memory_bytes[tier] / GIB;
const isOk = (p) => p.status === "ok" && speed(p) > 0;
const isPlanned = (p) => p.flags.percent === undefined || Object.values(p.flags).includes("plan");
const short = (text) => String(text).replace(/^random:/, "").replace(/^.*\/(?=[^/])/, "");

function value(p, key) {
  if (key === "sweep") return p.sweep;
  if (key === "label") return p.label || "";
  if (key === "placement") return isPlanned(p) ? "planned" : "stated";
  if (key === "format") return p.format || p.flags.format || "dense";
  return p.flags[key] === undefined ? "–" : short(p.flags[key]);
}

const flagNames = unique(points.flatMap((p) => Object.keys(p.flags)));
const varies = (key) => unique(points.map((p) => value(p, key))).length > 1;
const FIRST = ["model", "percent", "gpu-batch-size", "num-gpu-batches", "gpu-memory", "cpu-memory"];
const rank = (key) => FIRST.includes(key) ? FIRST.indexOf(key) : key === "hardware" ? FIRST.length + 1 : FIRST.length;
// The format is a point's own also where the planner chose it among several.
const varying = unique([...flagNames, "format"]).filter(varies).sort((a, b) => rank(a) - rank(b));
const states = (p, key) => key === "format" || p.flags[key] !== undefined;
const dimensions = unique(["model", "hardware", "placement", "format", "gpu-memory", "sweep", ...varying])
  .filter((key) => (flagNames.includes(key) || ["placement", "format", "sweep"].includes(key)) && varies(key))
  .filter((key) => unique(points.map((p) => value(p, key))).length <= 24);

/// A flag as a reader says it: "opt-30b", "48x3", "no cpu-cache-compute".
function spoken(p, key) {
  const text = value(p, key);
  if (key === "num-gpu-batches" && p.flags["gpu-batch-size"] !== undefined) return "";
  if (key === "gpu-batch-size" && p.flags["num-gpu-batches"] !== undefined) return `${text}x${p.flags["num-gpu-batches"]}`;
  if (text === "true" || text === "false") return text === "true" ? key : `no ${key}`;
  return ["threads", "gen-len", "prompt-len", "num-requests", "prefetch-depth"].includes(key) ? `${key} ${text}` : text;
}

function name(p) {
  if (p.label) return value(p, "hardware") !== "–" && varies("hardware") ? `${p.label}, ${value(p, "hardware")}` : p.label;
  const parts = varying.filter((key) => states(p, key)).map((key) => spoken(p, key)).filter((part) => part);
  return parts.join(" · ") || p.id;
}

/// What was slower beside the last run of a disturbed point than in the profile.
const slowed = (p) => p.disturbed ? [["host", p.host_share], ["disk", p.disk_share]].filter(([, share]) => share < 1)
  .map(([what, share]) => `${what} at ${digits(100 * share)} %`).join(", ") : undefined;

const shape = (p) => p.placement ? `${p.placement.gpu_batch_size}x${p.placement.num_gpu_batches}` : "";
function placed(p) {
  if (!p.placement) return "";
  return `${p.placement.percent}, ${shape(p)}${p.placement.cpu_attention ? ", CPU attention" : ""}`;
}
