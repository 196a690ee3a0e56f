"use strict";
// Makes a page that can be read without it easier to use: contents, colour scheme, tables that sort, filter and fold, charts.
// Texts of the corpus go into the page as textContent alone.

const SHOWN = 20; // rows of a table before the rest is asked for
const FILTERED = 12; // rows from which on a table can be filtered
const PALETTE = 10; // colours --c0 … of page.css
const SYMBOLS = ["circle", "diamond", "square", "triangle-up", "cross", "star"]; // of a map's groups, when the colours are used up
const STEP = 1.6; // of a map's zoom buttons

const root = document.documentElement;
root.classList.add("js");
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function button(text, label, press) {
  const made = element("button", { type: "button", textContent: text });
  made.ariaLabel = label;
  made.addEventListener("click", press);
  return made;
}

const number = (value) =>
  Number.isInteger(value) || Math.abs(value) >= 1000
    ? value.toLocaleString("en", { maximumFractionDigits: 0 })
    : String(+value.toPrecision(4));
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);

// ---- contents and colour scheme

const menu = document.getElementById("menu");
const contents = document.getElementById("contents");
const openMenu = (open) => {
  contents.classList.toggle("open", open);
  menu.setAttribute("aria-expanded", open);
};
menu.addEventListener("click", () => openMenu(!contents.classList.contains("open")));
contents.addEventListener("click", (event) => event.target.closest("a") && openMenu(false));
document.addEventListener("keydown", (event) => event.key === "Escape" && openMenu(false));

const links = new Map(all("a", contents).map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      for (const [key, link] of links) {
        if (key === target.id) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    }
  },
  { rootMargin: "-15% 0px -80% 0px" },
);
all("section").forEach((section) => seen.observe(section));

const wantsDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.scheme ? root.dataset.scheme === "dark" : wantsDark.matches);
const schemeButton = document.getElementById("scheme");
function schemeChanged() {
  schemeButton.textContent = isDark() ? "Light" : "Dark";
  redraw();
}
schemeButton.addEventListener("click", () => {
  root.dataset.scheme = isDark() ? "light" : "dark";
  schemeChanged();
});
wantsDark.addEventListener("change", schemeChanged);

const foldsButton = document.getElementById("folds");
foldsButton.hidden = !document.querySelector(".fold");
foldsButton.addEventListener("click", () => {
  const open = foldsButton.textContent === "Open all";
  all(".fold").forEach((fold) => (fold.open = open));
  foldsButton.textContent = open ? "Close all" : "Open all";
});

// ---- tables, bars, commands

for (const table of all("table.long")) {
  const body = table.tBodies[0];
  const box = table.closest(".scroll") ?? table;
  const rows = [...body.rows];
  let wanted = "", whole = rows.length <= SHOWN * 1.25; // nobody wants to press for two more
  const more = button("", null, () => {
    whole = true;
    refresh();
  });
  more.classList.add("more");
  const told = element("small");
  told.setAttribute("role", "status");
  const refresh = () => {
    const found = [...body.rows].filter((row) => !wanted || row.textContent.toLowerCase().includes(wanted));
    const shown = new Set(whole ? found : found.slice(0, SHOWN));
    for (const row of rows) row.hidden = !shown.has(row);
    more.textContent = `Show all ${number(found.length)}`;
    more.hidden = shown.size === found.length;
    told.textContent = wanted ? `${number(found.length)} of ${number(rows.length)}` : "";
  };
  box.after(more);
  refresh();
  if (!table.classList.contains("sortable")) continue;

  if (rows.length >= FILTERED) {
    const input = element("input", { type: "search", placeholder: "Filter" });
    input.ariaLabel = `Filter ${box.getAttribute("aria-label")}`;
    input.addEventListener("input", () => {
      wanted = input.value.trim().toLowerCase();
      refresh();
    });
    box.before(element("div", { className: "filter" }, input, told));
  }
  if (rows.length < 3) continue;
  all("th", table.tHead).forEach((head, column, heads) => {
    const value = (row) => {
      const { dataset, textContent } = row.cells[column];
      return dataset.value === undefined ? textContent : dataset.value === "" ? null : Number(dataset.value);
    };
    const numeric = head.classList.contains("number");
    const press = element("button", { type: "button", textContent: head.textContent });
    press.addEventListener("click", () => {
      // numbers from the largest first, texts from A; what is not known stays last
      const first = numeric ? "descending" : "ascending";
      const order = head.ariaSort === first ? (numeric ? "ascending" : "descending") : first;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const sorted = rows.map((row) => [value(row), row]).sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        return sign * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
      });
      body.append(...sorted.map(([, row]) => row));
      refresh();
    });
    head.replaceChildren(press);
  });
}

for (const code of all(".command code")) {
  const copy = button("Copy", "Copy the command", async () => {
    getSelection().selectAllChildren(code); // where the clipboard is out of reach, the keyboard does the rest
    await navigator.clipboard?.writeText(code.textContent);
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  code.after(copy);
}

// ---- charts: drawn when they come near the screen or go to a printer, and again when the colours change

const probe = document.body.appendChild(element("i", { hidden: true }));
function color(name, alpha = 1) {
  probe.style.color = `var(--${name})`;
  const [red, green, blue] = getComputedStyle(probe).color.match(/[\d.]+/g);
  return `rgba(${red},${green},${blue},${alpha})`;
}

const axis = () => ({
  fixedrange: true,
  zeroline: false,
  gridcolor: color("line"),
  linecolor: color("line"),
  tickfont: { size: 11, color: color("grey") },
  title: { font: { size: 12, color: color("grey") }, standoff: 6 },
});
const layoutOf = (more) => ({
  paper_bgcolor: "rgba(0,0,0,0)",
  plot_bgcolor: "rgba(0,0,0,0)",
  font: { family: getComputedStyle(document.body).fontFamily, color: color("ink") },
  showlegend: false,
  ...more,
});
const CONFIG = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };

// What is pointed at, said beside it; `at` in pixels of the chart.
function cardOf(chart) {
  const card = chart.appendChild(element("div", { className: "card", hidden: true }));
  const ring = chart.appendChild(element("i", { className: "ring", hidden: true }));
  return {
    hide: () => (card.hidden = ring.hidden = true),
    show(at, title, lines, picture) {
      ring.hidden = false;
      ring.style.left = `${at.x}px`;
      ring.style.top = `${at.y}px`;
      const list = element("dl");
      for (const [name, text, swatch] of lines) {
        const term = element("dt");
        if (swatch) {
          const square = element("i", { className: "swatch" });
          square.dataset.color = swatch;
          term.append(square);
        }
        term.append(name);
        list.append(term, element("dd", { textContent: text }));
      }
      card.replaceChildren(...(picture ? [picture] : []), element("b", { textContent: title }), ...(lines.length ? [list] : []));
      card.hidden = false;
      const left = at.x + 14 + card.offsetWidth <= chart.clientWidth ? at.x + 14 : at.x - 14 - card.offsetWidth;
      card.style.left = `${Math.max(0, Math.min(left, chart.clientWidth - card.offsetWidth))}px`;
      card.style.top = `${Math.max(0, Math.min(at.y - card.offsetHeight / 2, chart.clientHeight - card.offsetHeight))}px`;
    },
  };
}

function histogram(chart, data) {
  const plot = chart.appendChild(element("div", { className: "plot" }));
  const card = cardOf(chart);
  const { edges, series, log } = data;
  const lows = edges.slice(0, -1);
  const several = series.length > 1;
  const totals = series.map(({ counts }) => sum(counts));
  const heights = series.map(({ counts }, which) => counts.map((count) => (data.shares ? count / (totals[which] || 1) : count)));
  const marks = Object.entries(data.marks).filter(([, value]) => value >= edges[0] && value <= edges.at(-1));
  const position = log ? Math.log10 : (value) => value;

  function draw() {
    const traces = series.flatMap(({ color: name }, which) => {
      const bars = {
        type: "bar",
        x: lows.map((low, bin) => (low + edges[bin + 1]) / 2),
        width: lows.map((low, bin) => edges[bin + 1] - low),
        y: heights[which],
        marker: { color: color(name, several ? 0.14 : 1), line: { width: several ? 0 : 0.5, color: color("paper") } },
      };
      const line = { shape: "hv", color: color(name), width: 1.75 };
      const outline = { type: "scatter", mode: "lines", x: [edges[0], ...edges], y: [0, ...heights[which], 0], line };
      return several ? [bars, outline] : [bars];
    });
    const highest = Math.max(...heights.flat());
    const layout = layoutOf({
      margin: { l: 48, r: 14, t: marks.length ? 10 + 14 * marks.length : 10, b: 40 },
      bargap: 0,
      barmode: "overlay",
      hovermode: false,
      dragmode: false,
      xaxis: { ...axis(), type: log ? "log" : "linear", range: [edges[0], edges.at(-1)].map(position), showgrid: false, ticks: "outside" },
      yaxis: { ...axis(), rangemode: "tozero", nticks: 5, tickformat: data.shares ? ".2~p" : "~s" },
      shapes: marks.map(([, value]) => ({
        type: "line", x0: value, x1: value, yref: "paper", y0: 0, y1: 1, line: { color: color("grey"), width: 1.5, dash: "dash" },
      })),
      annotations: marks.map(([name, value], which) => {
        const right = position(value) - position(edges[0]) > 0.6 * (position(edges.at(-1)) - position(edges[0]));
        return {
          text: plain(name), x: position(value), yref: "paper", y: 1, yshift: 14 * which + 8, showarrow: false,
          xanchor: right ? "right" : "left", font: { size: 11, color: color("grey") },
        };
      }),
    });
    layout.xaxis.title.text = plain(data.unit);
    if (log) layout.xaxis.dtick = edges.at(-1) / edges[0] > 30 ? 1 : "D2";
    if (edges.at(-1) < 1e4) layout.xaxis.exponentformat = "none"; // 0.0001, not "100µ"
    if (!data.shares && highest < 5) layout.yaxis.dtick = 1;
    Plotly.react(plot, traces, layout, CONFIG);
  }

  draw();
  const pointed = ({ clientX }) => {
    const { xaxis, yaxis } = plot._fullLayout;
    const x = xaxis.p2d(clientX - plot.getBoundingClientRect().left - xaxis._offset);
    const bin = edges.findLastIndex((edge) => edge <= x);
    if (bin < 0 || bin === lows.length) return card.hide();
    const at = {
      x: xaxis._offset + (xaxis.d2p(edges[bin]) + xaxis.d2p(edges[bin + 1])) / 2,
      y: yaxis._offset + yaxis.d2p(Math.max(...heights.map((one) => one[bin]))),
    };
    const lines = series.map(({ name, counts, color: swatch }, which) => [
      several ? name : "", `${number(counts[bin])} (${percent(counts[bin] / (totals[which] || 1))})`, several && swatch,
    ]);
    card.show(at, `${number(edges[bin])} to ${number(edges[bin + 1])} ${data.unit}`, lines);
  };
  plot.addEventListener("pointermove", pointed);
  plot.addEventListener("pointerdown", pointed);
  plot.addEventListener("pointerleave", card.hide);
  return draw;
}

// Plotly reads a few tags in its own texts; a text of the corpus has none.
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function map(chart, data) {
  const count = data.x.length;
  const colorings = data.colors.length ? data.colors : [{ name: "", groups: true, values: data.x.map(() => "objects") }];
  let kind = data.webgl ? "scattergl" : "scatter";
  const touch = matchMedia("(pointer: coarse)").matches;
  let coloring = colorings[0];
  let left = new Set(); // groups that are not shown
  let groups = [];
  let pointed = null;

  const plot = element("div", { className: "plot" });
  plot.setAttribute("role", "img");
  plot.ariaLabel = `${chart.dataset.title}: ${number(count)} objects; “Find” below reaches each from the keyboard`;
  const legend = element("div", { className: "legend" });
  const choice = element("select", {}, ...colorings.map(({ name }) => element("option", { textContent: name })));
  choice.addEventListener("change", () => {
    coloring = colorings[choice.selectedIndex];
    left = new Set();
    draw();
  });
  const search = element("input", { type: "search", placeholder: "name or id" });
  const hint = element("p", {
    className: "note",
    textContent: touch ? "Tap an object; two fingers zoom and move." : "Point at an object. Drag to move; Ctrl and the wheel, or a pinch, zoom.",
  });
  const tools = element(
    "div", { className: "tools" },
    ...(colorings.length > 1 ? [element("label", {}, "Colour by", choice)] : []),
    element("label", {}, "Find", search),
    button("+", "Zoom in", () => zoom(STEP)),
    button("−", "Zoom out", () => zoom(1 / STEP)),
    button("Reset", "Show the whole map", () => Plotly.relayout(plot, home())),
  );
  chart.append(tools, plot, legend, hint);
  const card = cardOf(chart);

  const span = (values) => {
    const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    const room = 0.06 * (high - low) || 1;
    return [low - room, high + room];
  };
  const home = () => ({ "xaxis.range": span(data.x), "yaxis.range": span(data.y) });

  // Objects by group, the largest first, with those of no group last; of a scale: those with a number and those without.
  function groupsOf() {
    const members = new Map();
    coloring.values.forEach((value, object) => {
      const group = value === null ? null : coloring.groups ? value : "";
      if (!members.has(group)) members.set(group, []);
      members.get(group).push(object);
    });
    const rank = ([name, objects]) => (name === null ? 2 : /^others?$/i.test(name) ? 1 : 0) * count - objects.length;
    let place = 0;
    return [...members].sort((a, b) => rank(a) - rank(b)).map(([name, objects]) => {
      const grey = name === null || /^others?$/i.test(name);
      const which = grey ? 0 : place++;
      const symbol = grey ? (name === null ? "circle-open" : "circle") : SYMBOLS[Math.floor(which / PALETTE) % SYMBOLS.length];
      return { name, objects, color: grey ? "grey" : `c${which % PALETTE}`, symbol };
    });
  }

  function draw() {
    groups = groupsOf();
    const size = Math.max(4, Math.min(11, 160 / Math.sqrt(count))) + (touch ? 1.5 : 0);
    const known = coloring.groups ? [] : coloring.values.filter((value) => value !== null).sort((a, b) => a - b);
    const [low, high] = [0.02, 0.98].map((share) => known[Math.floor(share * (known.length - 1))]); // a stray one hides no scale
    const traces = groups.map(({ name, objects, color: ink, symbol }) => ({
      type: kind,
      mode: "markers",
      x: objects.map((object) => data.x[object]),
      y: objects.map((object) => data.y[object]),
      hoverinfo: "none",
      visible: !left.has(name),
      marker: {
        size, symbol, opacity: 0.82,
        line: { width: symbol === "circle-open" ? 1.2 : 0 },
        ...(coloring.groups || name === null
          ? { color: color(ink) }
          : {
              color: objects.map((object) => coloring.values[object]), cmin: low, cmax: high,
              colorscale: [[0, color("c1")], [0.5, color("grey")], [1, color("c0")]],
            }),
      },
    }));
    const hidden = { visible: false, fixedrange: false };
    const { "xaxis.range": x, "yaxis.range": y } = home();
    const layout = layoutOf({
      margin: { l: 0, r: 0, t: 0, b: 0 },
      hovermode: "closest",
      hoverdistance: touch ? 30 : 15,
      dragmode: touch ? false : "pan",
      uirevision: "stay", // where somebody has zoomed to
      xaxis: { ...hidden, range: x },
      yaxis: { ...hidden, range: y, scaleanchor: "x" },
    });
    Plotly.react(plot, traces, layout, CONFIG);
    if (plot.querySelector(".no-webgl")) {
      kind = "scatter";
      return draw();
    }
    card.hide();
    if (coloring.groups) legend.replaceChildren(...groups.map(entry));
    else {
      const without = groups.filter(({ name }) => name === null).map(entry);
      legend.replaceChildren(...(known.length ? [element("span", {}, number(low), element("i", { className: "scale" }), number(high))] : []), ...without);
    }
  }

  function entry({ name, objects, color: ink, symbol }) {
    const press = button("", null, () => {
      left.has(name) ? left.delete(name) : left.add(name);
      draw();
      all("button", legend).find((one) => one.dataset.name === press.dataset.name)?.focus();
    });
    const path = {
      circle: "M7 1.5a5.5 5.5 0 1 0 .01 0z", diamond: "M7 0l6 7-6 7-6-7z", square: "M2 2h10v10H2z", "triangle-up": "M7 1l6.5 12H.5z",
      cross: "M5 1h4v4h4v4H9v4H5V9H1V5h4z", star: "M7 0l2 5h5l-4 3.2L11.5 14 7 10.5 2.5 14 4 8.2 0 5h5z",
    }[symbol.replace("-open", "")];
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 14 14");
    const shape = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
    shape.setAttribute("d", path);
    shape.style.cssText = symbol.endsWith("open") ? `fill:none;stroke:var(--${ink});stroke-width:1.6` : `fill:var(--${ink})`;
    press.dataset.name = name;
    press.setAttribute("aria-pressed", !left.has(name));
    press.append(svg, name ?? "not known", element("small", { textContent: number(objects.length) }));
    return press;
  }

  function picture(object) {
    const { sprite, cells } = data;
    if (!sprite || cells[object] < 0) return null;
    const shown = Math.max(96, sprite.tile);
    const [x, y] = [cells[object] % sprite.columns, Math.floor(cells[object] / sprite.columns)];
    const inner = element("i");
    inner.style.cssText = `background:url(${sprite.src}) ${-x * shown}px ${-y * shown}px / ${sprite.columns * shown}px auto no-repeat`;
    const made = element("span", { className: "picture" }, inner);
    made.style.width = made.style.height = `${shown}px`;
    return made;
  }

  function point(object) {
    pointed = object;
    const { xaxis, yaxis } = plot._fullLayout;
    const at = {
      x: plot.offsetLeft + xaxis._offset + xaxis.d2p(data.x[object]),
      y: plot.offsetTop + yaxis._offset + yaxis.d2p(data.y[object]),
    };
    const lines = data.colors.map(({ name, values }) => {
      const value = values[object];
      return [name, value === null ? "not known" : typeof value === "number" ? number(value) : value];
    });
    card.show(at, data.labels[object], lines, picture(object));
  }

  // `at`: pixels of the plot that stay where they are; `by`: pixels to move by
  function zoom(factor, at = { x: plot.clientWidth / 2, y: plot.clientHeight / 2 }, by = { x: 0, y: 0 }) {
    const { xaxis, yaxis } = plot._fullLayout;
    const moved = (one, pixel, shift) => {
      const fixed = one.p2d(pixel - one._offset);
      const step = one.p2d(shift) - one.p2d(0);
      return one.range.map((end) => fixed + (end - fixed) / factor - step / factor);
    };
    card.hide();
    Plotly.relayout(plot, { "xaxis.range": moved(xaxis, at.x, by.x), "yaxis.range": moved(yaxis, at.y, by.y) });
  }
  const within = ({ clientX, clientY }) => {
    const box = plot.getBoundingClientRect();
    return { x: clientX - box.left, y: clientY - box.top };
  };

  draw();
  for (const event of ["plotly_hover", "plotly_click"]) {
    plot.on(event, ({ points: [{ curveNumber, pointNumber }] }) => point(groups[curveNumber].objects[pointNumber]));
  }
  plot.on("plotly_unhover", () => touch || card.hide());
  plot.on("plotly_relayouting", card.hide);
  plot.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
      event.preventDefault();
      zoom(2 ** (-event.deltaY / (event.deltaMode ? 4 : 180)), within(event));
    },
    { passive: false, capture: true },
  );
  let fingers = null; // where two fingers were: their middle and how far apart
  const spread = ([one, other]) => {
    const [a, b] = [within(one), within(other)];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
  };
  plot.addEventListener("touchstart", ({ touches }) => (fingers = touches.length === 2 ? spread(touches) : null), { passive: true });
  plot.addEventListener(
    "touchmove",
    (event) => {
      if (!fingers || event.touches.length !== 2) return;
      event.preventDefault();
      const now = spread(event.touches);
      zoom(now.apart / fingers.apart, fingers, { x: now.x - fingers.x, y: now.y - fingers.y });
      fingers = now;
    },
    { passive: false },
  );
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const wanted = search.value.trim().toLowerCase();
    const matches = (object) => data.labels[object].toLowerCase().includes(wanted);
    const order = [...data.x.keys()].map((step) => (step + (pointed ?? -1) + 1) % count); // Enter again: the next one
    const found = wanted ? order.find(matches) : undefined;
    search.setCustomValidity(wanted && found === undefined ? "No object of this map is called so." : "");
    search.reportValidity();
    if (found === undefined) return;
    Plotly.relayout(plot, home());
    point(found);
  });
  search.addEventListener("input", () => search.setCustomValidity(""));
  return draw;
}

const DRAW = { histogram, map };
const drawn = new Map();
const waiting = new Set(all(".chart"));
function drawChart(chart) {
  waiting.delete(chart);
  near.unobserve(chart);
  const data = JSON.parse(chart.querySelector("script").textContent);
  drawn.set(chart, DRAW[chart.dataset.chart](chart, data));
}
const near = new IntersectionObserver((entries) => entries.filter((one) => one.isIntersecting).forEach((one) => drawChart(one.target)), {
  rootMargin: "300px",
});
function redraw() {
  for (const draw of drawn.values()) draw();
}
schemeChanged();
addEventListener("load", () => waiting.forEach((chart) => near.observe(chart))); // plotly comes last: the page is in use by then

let schemeBefore;
addEventListener("beforeprint", () => {
  schemeBefore = root.dataset.scheme;
  root.dataset.scheme = "light";
  root.classList.add("printing");
  redraw();
  [...waiting].forEach(drawChart);
  for (const chart of drawn.keys()) Plotly.Plots.resize(chart.querySelector(".plot"));
});
addEventListener("afterprint", () => {
  if (schemeBefore) root.dataset.scheme = schemeBefore;
  else delete root.dataset.scheme;
  root.classList.remove("printing");
  redraw();
  for (const chart of drawn.keys()) Plotly.Plots.resize(chart.querySelector(".plot"));
});
