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
  {title: "disturbed", get: slowed},
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
