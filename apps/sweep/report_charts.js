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
  if (p.disturbed) lines.push(`disturbed: ${slowed(p)}`);
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
