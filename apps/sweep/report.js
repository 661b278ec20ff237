"use strict";
// Draws the page from the JSON in #data: {"sweep": the header, "points": the lines}. Charts show what was measured
// where it was, else what was predicted; every canvas gets data-drawn, the number of points in it.

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

const shape = (p) => p.placement ? `${p.placement.gpu_batch_size}x${p.placement.num_gpu_batches}` : "";
function placed(p) {
  if (!p.placement) return "";
  return `${p.placement.percent}, ${shape(p)}${p.placement.cpu_attention ? ", CPU attention" : ""}`;
}

// ---- State.

const state = {colourBy: "", shapeBy: "", tier: "gpu", words: [], column: 0, ascending: true};
const charts = new Map();

/// The values of a dimension, in the order in which they first come, with what stands for each.
function scale(key, marks) {
  const values = key ? unique(points.filter(isOk).map((p) => value(p, key))) : [""];
  if (values.every((v) => !isNaN(parseFloat(v)))) values.sort((a, b) => parseFloat(a) - parseFloat(b));
  return new Map(values.map((v, i) => [v, marks[i % marks.length]]));
}
const isDark = matchMedia("(prefers-color-scheme: dark)");
const ink = (colour) => isDark.matches ? ON_DARK[COLOURS.indexOf(colour)] : colour;
const haystack = new Map(points.map((p) => [p, [name(p), p.status, placed(p), p.message || "",
  ...Object.entries(p.flags).map(([k, v]) => `${k}=${v}`)].join(" ").toLowerCase()]));
const shown = () => points.filter((p) => state.words.every((word) => haystack.get(p).includes(word)));

// ---- Charts.

const isWide = (values) => Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 20;

function axis(title, values, {fromZero = true} = {}) {
  const log = isWide(values);
  const result = {
    type: log ? "logarithmic" : "linear",
    title: {display: true, text: log ? `${title}, log scale` : title, color: css("--faint"), font: {size: 13}},
    grid: {color: css("--line"), borderColor: css("--line")},
    ticks: {color: css("--faint"), maxRotation: 0, autoSkipPadding: 12},
  };
  if (log) {
    result.min = Math.min(...values) / 1.25;
    result.max = Math.max(...values) * 1.25;
    const wanted = result.max / result.min > 3000 ? [1] : [1, 2, 5];
    result.afterBuildTicks = (built) => {
      built.ticks = [];
      for (let exponent = Math.floor(Math.log10(result.min)); exponent <= Math.log10(result.max); ++exponent) {
        for (const mantissa of wanted) {
          const tick = mantissa * 10 ** exponent;
          if (tick >= result.min && tick <= result.max) built.ticks.push({value: tick});
        }
      }
    };
    result.ticks.callback = (tick) => Number(tick.toPrecision(3)).toLocaleString("en", {maximumSignificantDigits: 3});
  } else {
    result.beginAtZero = fromZero;
    result.grace = "6%";
    result.ticks.callback = (tick) => Number(tick.toPrecision(6)).toLocaleString("en");
  }
  return result;
}

function tooltipLines(p) {
  const lines = [`${digits(speed(p))} tokens/s ${p.measured ? "measured" : "predicted"}, latency ${digits(latency(p))} s`];
  if (p.measured && p.predicted) lines.push(`predicted ${digits(p.predicted.tokens_per_sec)} tokens/s`);
  if (p.published_tokens_per_sec) lines.push(`published ${digits(p.published_tokens_per_sec)} tokens/s`);
  lines.push(`memory ${["gpu", "cpu", "disk"].map((t) => `${t} ${digits(memory(p, t))}`).join(", ")} GiB`, placed(p));
  return lines;
}

const marker = {
  id: "marker",
  afterDraw(chart) {
    chart.canvas.dataset.drawn = chart.data.datasets.reduce((n, set) => n + (set.counts ? set.data.length : 0), 0);
  },
};

function draw(id, config) {
  charts.get(id)?.destroy();
  config.options = {
    animation: false, responsive: true, maintainAspectRatio: false, ...config.options,
  };
  config.options.plugins = {legend: {display: false}, ...config.options.plugins};
  config.plugins = [marker];
  charts.set(id, new Chart(element(id), config));
}

/// Datasets of `list`, one for each colour and shape.
function pointSets(list, at, x, y) {
  const groups = new Map();
  for (const p of list) {
    const key = [value(p, state.colourBy), state.shapeBy ? value(p, state.shapeBy) : ""].join("\n");
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(p);
  }
  const many = list.length > 150;
  return [...groups.values()].map((group) => {
    const colour = ink(at.colours.get(state.colourBy ? value(group[0], state.colourBy) : ""));
    return {
      type: "scatter", counts: true, points: group,
      data: group.map((p) => ({x: x(p), y: y(p)})),
      pointStyle: at.shapes.get(state.shapeBy ? value(group[0], state.shapeBy) : ""),
      pointRadius: many ? 3.5 : 5.5, pointHoverRadius: 8, borderWidth: 1.6,
      backgroundColor: colour + "b0", borderColor: colour,
    };
  });
}

function scatter(id, title, list, at, xAxis, yAxis, x, y, lines = []) {
  element(`${id}-title`).textContent = title;
  element(id).setAttribute("aria-label", title);
  draw(id, {
    type: "scatter",
    data: {datasets: [...pointSets(list, at, x, y), ...lines]},
    options: {
      scales: {x: xAxis, y: yAxis},
      plugins: {
        tooltip: {
          filter: (item) => item.dataset.points !== undefined,
          callbacks: {
            title: (items) => items.map((item) => name(item.dataset.points[item.dataIndex])),
            label: (item) => tooltipLines(item.dataset.points[item.dataIndex]),
          },
        },
      },
    },
  });
}

/// Those of `list` that no other of the same colour beats in both speed and latency, by latency.
function front(list) {
  const best = [];
  for (const p of [...list].sort((a, b) => latency(a) - latency(b) || speed(b) - speed(a))) {
    if (best.length === 0 || speed(p) > speed(best[best.length - 1])) best.push(p);
  }
  return best;
}

/// Lines between points that differ in the budget of the shown tier alone: what more memory brings.
function memoryLines(list, at, x, y) {
  const budget = `${state.tier}-memory`;
  if (!varying.includes(budget)) return [];
  const groups = new Map();
  for (const p of list) {
    const key = [p.label || "", ...varying.filter((each) => each !== budget).map((each) => value(p, each))].join("\n");
    groups.set(key, [...(groups.get(key) || []), p]);
  }
  return [...groups.values()].filter((group) => group.length > 1).map((group) => ({
    type: "scatter", showLine: true, pointRadius: 0, pointHitRadius: 0, borderWidth: 1.5,
    borderColor: ink(at.colours.get(state.colourBy ? value(group[0], state.colourBy) : "")) + "80",
    data: group.map((p) => ({x: x(p), y: y(p)})).sort((a, b) => a.x - b.x),
  }));
}

const bestOf = (list) => list.reduce((a, b) => (speed(b) > speed(a) ? b : a));
const TIER_NAMES = {gpu: "GPU", cpu: "CPU", disk: "disk"};

function drawThroughput(list, at) {
  const best = bestOf(list);
  const tier = TIER_NAMES[state.tier];
  const x = (p) => memory(p, state.tier);
  scatter("throughput",
    `Throughput against ${tier} memory: at best ${digits(speed(best))} tokens/s with ${digits(x(best))} GiB (${name(best)})`,
    list, at, axis(`${tier} memory at its peak (GiB)`, list.map(x)), axis("throughput (tokens/s)", list.map(speed)), x, speed,
    memoryLines(list, at, x, speed));
}

function drawLatency(list, at) {
  const best = list.reduce((a, b) => (latency(b) < latency(a) ? b : a));
  const tier = TIER_NAMES[state.tier];
  const x = (p) => memory(p, state.tier);
  scatter("latency",
    `Latency of a block against ${tier} memory: at best ${digits(latency(best))} s (${name(best)})`,
    list, at, axis(`${tier} memory at its peak (GiB)`, list.map(x)), axis("latency of a block (s)", list.map(latency)), x, latency,
    memoryLines(list, at, x, latency));
}

function drawPareto(list, at) {
  const groups = [...at.colours.keys()].map((v) => list.filter((p) => !state.colourBy || value(p, state.colourBy) === v))
    .filter((group) => group.length > 0);
  const fronts = groups.map(front);
  const size = fronts.reduce((n, each) => n + each.length, 0);
  const lines = fronts.filter((each) => each.length > 1).map((each) => ({
    type: "scatter", showLine: true, stepped: true, pointRadius: 0, pointHitRadius: 0, borderWidth: 2,
    borderColor: ink(at.colours.get(state.colourBy ? value(each[0], state.colourBy) : "")) + "90",
    data: each.map((p) => ({x: latency(p), y: speed(p)})),
  }));
  const of = state.colourBy && groups.length > 1 ? ` for its ${state.colourBy}` : "";
  scatter("pareto",
    `Throughput against latency: ${size} of ${list.length} points are on the Pareto front${of} (line)`,
    list, at, axis("latency of a block (s)", list.map(latency)), axis("throughput (tokens/s)", list.map(speed)),
    latency, speed, lines);
}

/// Predicted against measured with the 10 % band, or against published figures; hidden where there are neither.
function drawCompared(list, at) {
  const measured = list.filter((p) => p.measured && p.predicted);
  const published = list.filter((p) => p.predicted && p.published_tokens_per_sec);
  const compared = measured.length > 0 ? measured : published;
  element("compared-card").hidden = compared.length === 0;
  element("pareto-card").classList.toggle("wide", compared.length === 0);
  if (compared.length === 0) {
    charts.get("compared")?.destroy();
    charts.delete("compared");
    delete element("compared").dataset.drawn;
    return;
  }
  const isMeasured = measured.length > 0;
  const x = (p) => isMeasured ? p.measured.tokens_per_sec : p.published_tokens_per_sec;
  const y = (p) => p.predicted.tokens_per_sec;
  const all = [...compared.map(x), ...compared.map(y)];
  const what = isMeasured ? "measured" : "published";
  const within = compared.filter((p) => Math.abs(y(p) / x(p) - 1) <= 0.1).length;
  const above = compared.filter((p) => y(p) > x(p)).length;
  const title = isMeasured
    ? `Predicted against measured: ${within} of ${compared.length} points within 10 % (band)`
    : `Predicted against published: above the published figure at ${above} of ${compared.length} points`;
  const xAxis = axis(`${what} (tokens/s)`, all);
  const yAxis = axis("predicted (tokens/s)", all);
  const [low, high] = xAxis.type === "logarithmic" ? [xAxis.min, xAxis.max] : [0, 1.06 * Math.max(...all)];
  if (xAxis.type === "linear") {
    xAxis.max = yAxis.max = high;
    delete xAxis.grace;
    delete yAxis.grace;
  }
  const line = (factor, more) => ({
    type: "scatter", showLine: true, pointRadius: 0, pointHitRadius: 0, borderWidth: 0,
    data: [{x: low, y: factor * low}, {x: high, y: factor * high}], ...more,
  });
  const lines = [line(1, {borderWidth: 1.5, borderDash: [5, 4], borderColor: css("--faint")})];
  if (isMeasured) lines.push(line(0.9), line(1.1, {fill: "-1", backgroundColor: css("--band")}));
  scatter("compared", title, compared, at, xAxis, yAxis, x, y, lines);
}

function busyShares(p) {
  const shares = new Map();
  for (const lane of figures(p).lanes) {
    const kind = lane.name.replace("_urgent", "");
    shares.set(kind, (shares.get(kind) || 0) + 100 * lane.busy_sec / figures(p).total_sec);
  }
  return shares;
}

function drawLanes(list) {
  const bars = list.slice(0, MOST_BARS);
  const shares = bars.map(busyShares);
  const busiest = new Map();
  for (const p of list) {
    const [lane] = [...busyShares(p)].reduce((a, b) => (b[1] > a[1] ? b : a), ["", 0]);
    busiest.set(lane, (busiest.get(lane) || 0) + 1);
  }
  const order = [...busiest].sort((a, b) => b[1] - a[1]);
  const title = `Lane use: ${order.map(([lane, n]) => `${lane} is the busiest lane of ${count(n, "point")}`).join(", ")}`;
  element("lanes-title").textContent = title;
  element("lanes").setAttribute("aria-label", title);
  element("lanes-note").textContent = "Lanes work at the same time: a bar of 200 % means that two were busy on average." +
    (list.length > bars.length ? ` The first ${bars.length} of ${list.length} points, in the order of the table.` : "");
  element("lanes").parentElement.style.height = `${90 + 24 * bars.length}px`;
  const used = LANES.filter(([lane]) => shares.some((each) => each.get(lane) > 0));
  const label = (p) => { const text = name(p); return text.length > 46 ? text.slice(0, 45) + "…" : text; };
  draw("lanes", {
    type: "bar",
    data: {
      labels: bars.map(label),
      datasets: used.map(([lane, colour]) => ({
        label: lane, counts: true, backgroundColor: ink(colour), borderColor: css("--card"), borderWidth: 1,
        data: shares.map((each) => each.get(lane) || 0),
      })),
    },
    options: {
      indexAxis: "y",
      scales: {
        x: {stacked: true, ...axis("busy share of the time, summed over lanes (%)", [0, 1])},
        y: {stacked: true, grid: {display: false}, ticks: {color: css("--ink"), autoSkip: false, font: {size: 12}}},
      },
      plugins: {
        legend: {display: true, position: "top", align: "start", labels: {color: css("--ink"), boxWidth: 13}},
        tooltip: {callbacks: {label: (item) => `${item.dataset.label} busy ${digits(item.parsed.x)} %`}},
      },
    },
  });
}

// ---- Legend and table.

function mark(colour, shapeName) {
  const shapes = {
    circle: '<circle cx="7" cy="7" r="5"/>', triangle: '<path d="M7 1.5 13 12.5H1Z"/>',
    rect: '<path d="M2 2H12V12H2Z"/>', rectRot: '<path d="M7 0.5 13.5 7 7 13.5 0.5 7Z"/>',
    star: '<path d="M7 1V13M1 7H13M3 3 11 11M11 3 3 11" stroke-width="1.8"/>',
    crossRot: '<path d="M2 2 12 12M12 2 2 12" stroke-width="2"/>',
  };
  return `<svg viewBox="0 0 14 14" fill="${colour}" stroke="${colour}" aria-hidden="true">${shapes[shapeName]}</svg>`;
}

function drawLegend(at) {
  const legend = element("legend");
  legend.textContent = "";
  const add = (html, text, kind) => {
    const item = document.createElement("span");
    item.innerHTML = html;
    item.append(text);
    if (kind) item.className = kind;
    legend.append(item);
  };
  if (state.colourBy) {
    add("", `${state.colourBy}:`, "dimension");
    for (const [v, colour] of at.colours) add(mark(ink(colour), "circle"), v);
  }
  if (state.shapeBy) {
    add("", `${state.shapeBy}:`, "dimension");
    for (const [v, shapeName] of at.shapes) add(mark(css("--faint"), shapeName), v);
  }
}

const has = (get) => points.some((p) => get(p) !== undefined && get(p) !== "");
const columns = [
  {title: "#", get: (p) => p.number + 1, number: true},
  {title: "label", get: (p) => p.label},
  ...varying.map((key) => ({title: key, get: (p) => states(p, key) ? value(p, key) : ""})),
  {title: "status", get: (p) => p.status, kind: "status"},
  {title: "measured tokens/s", get: (p) => p.measured?.tokens_per_sec, number: true},
  {title: "predicted tokens/s", get: (p) => p.predicted?.tokens_per_sec, number: true},
  {title: "error %", get: (p) => p.error_percent, number: true},
  {title: "published tokens/s", get: (p) => p.published_tokens_per_sec, number: true},
  {title: "latency s", get: latency, number: true},
  {title: "prefill s", get: (p) => figures(p)?.prefill_sec, number: true},
  {title: "decode s", get: (p) => figures(p)?.decode_sec, number: true},
  {title: "requests", get: (p) => p.requests, number: true},
  {title: "GPU GiB", get: (p) => memory(p, "gpu"), number: true},
  {title: "CPU GiB", get: (p) => memory(p, "cpu"), number: true},
  {title: "disk GiB", get: (p) => memory(p, "disk"), number: true},
  {title: "busiest lane", get: (p) => p.predicted?.wall},
  {title: "placement", get: placed},
  {title: "message", get: (p) => p.message, kind: "message"},
].filter((column) => has(column.get));

function sorted(list) {
  const {get, number} = columns[state.column];
  const direction = state.ascending ? 1 : -1;
  return [...list].sort((a, b) => {
    const [u, v] = [get(a), get(b)];
    if (u === undefined || u === "") return v === undefined || v === "" ? 0 : 1;  // empty cells are last
    if (v === undefined || v === "") return -1;
    return direction * (number ? u - v : String(u).localeCompare(String(v), "en", {numeric: true}));
  });
}

function drawTable(list) {
  element("table-title").textContent = list.length === points.length ? `All ${count(points.length, "point")}`
    : `${list.length} of ${count(points.length, "point")}`;
  const head = element("head");
  head.textContent = "";
  columns.forEach((column, i) => {
    const cell = document.createElement("th");
    const button = document.createElement("button");
    button.textContent = column.title + (i === state.column ? (state.ascending ? " ▲" : " ▼") : "");
    cell.append(button);
    if (column.number) cell.className = "number";
    if (i === state.column) cell.setAttribute("aria-sort", state.ascending ? "ascending" : "descending");
    cell.onclick = () => {
      state.ascending = state.column === i ? !state.ascending : !column.number;
      state.column = i;
      render();
    };
    head.append(cell);
  });
  const rows = element("rows");
  rows.textContent = "";
  for (const p of list) {
    const row = document.createElement("tr");
    row.className = p.status;
    for (const column of columns) {
      const cell = document.createElement("td");
      const content = column.get(p);
      cell.textContent = column.number ? digits(content) : content ?? "";
      if (column.number) cell.className = "number";
      if (column.kind) cell.className = column.kind;
      row.append(cell);
    }
    rows.append(row);
  }
}

// ---- The page.

function render() {
  const at = {
    colours: scale(state.colourBy, COLOURS),
    shapes: scale(state.shapeBy, SHAPES),
  };
  const rows = sorted(shown());
  const ok = rows.filter(isOk);
  for (const id of ["throughput", "latency", "pareto", "compared", "lanes"]) element(`${id}-card`).hidden = ok.length === 0;
  if (ok.length > 0) {
    drawThroughput(ok, at);
    drawLatency(ok, at);
    drawPareto(ok, at);
    drawCompared(ok, at);
    drawLanes(ok);
  }
  drawLegend(at);
  drawTable(rows);
}

function fill(select, first, keys, chosen) {
  for (const key of [first, ...keys]) {
    const option = document.createElement("option");
    option.value = key === first ? "" : key;
    option.textContent = key;
    select.append(option);
  }
  select.value = chosen;
}

function start() {
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  const sweep = data.sweep;
  const counts = ["ok", "refused", "failed"].map((s) => [s, points.filter((p) => p.status === s).length]);
  element("description").textContent = sweep.description;
  const machines = Object.values(sweep.hardware).map((each) => `${each.machine} (${each.source})`);
  const told = counts.filter(([, n]) => n > 0).map(([s, n]) => `${n} ${s}`).join(", ");
  element("summary").textContent = `${points.length} of ${count(sweep.points, "point")}, ` +
    `${sweep.mode === "simulate" ? "predicted" : "run"}: ${told}.`;
  element("footer").textContent = `sluice ${sweep.version}, commit ${sweep.commit}. Throughput is generated tokens over the ` +
    "time of prefill and decode; the latency of a block is the time from its first prompt to its last token." +
    (machines.length > 0 ? ` Profiles: ${machines.join("; ")}.` : "");
  state.colourBy = dimensions[0] || "";
  state.shapeBy = dimensions[1] || "";
  fill(element("colour-by"), "nothing", dimensions, state.colourBy);
  fill(element("shape-by"), "nothing", dimensions, state.shapeBy);
  element("colour-by").onchange = (event) => { state.colourBy = event.target.value; render(); };
  element("shape-by").onchange = (event) => { state.shapeBy = event.target.value; render(); };
  element("tier").onchange = (event) => { state.tier = event.target.value; render(); };
  element("filter").oninput = (event) => {
    state.words = event.target.value.toLowerCase().split(/\s+/).filter((word) => word);
    render();
  };
  isDark.addEventListener("change", render);
  render();
}

start();
