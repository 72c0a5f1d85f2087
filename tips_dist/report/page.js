// Figures are drawn when they come near the view, in the page's colours; the library is unpacked when first needed.
"use strict";
const CONFIG = {responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]]};
const PAPER = {width: 660, gap: 8, shrink: 0.58, height: 0.62, font: 10};  // pixels on A4; page.css has the same columns
const dark = matchMedia("(prefers-color-scheme: dark)");
const figures = [...document.querySelectorAll("figure")];
let library = null;

function unpack() {
  library ??= (async () => {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), sign => sign.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  })();
  return library;
}

function colours(layout, isDark) {
  const [ink, grid, line] = isDark ? ["#dfe3e8", "#343b44", "#7d8590"] : ["#222222", "#e6e6e6", "#888888"];
  const change = {"font.color": ink};
  for (const axis of Object.keys(layout).filter(key => /^[xy]axis/.test(key))) {
    Object.assign(change, {[axis + ".gridcolor"]: grid, [axis + ".linecolor"]: line, [axis + ".tickcolor"]: line});
  }
  return change;
}

function put(layout, change) {
  for (const [path, value] of Object.entries(change)) {
    const keys = path.split("."), last = keys.pop();
    keys.reduce((part, key) => part[key] ??= {}, layout)[last] = value;
  }
}

function draw(figure) {
  const plot = figure.querySelector(".plot");
  if (!window.Plotly || plot.dataset.drawn) return;
  plot.dataset.drawn = "yes";
  const {data, layout} = JSON.parse(figure.querySelector("script").textContent);
  put(layout, colours(layout, dark.matches));
  const name = figure.querySelector("h3").textContent, image = {scale: 2, filename: name};
  Plotly.newPlot(plot, data, layout, {...CONFIG, toImageButtonOptions: image, ...(layout.meta?.brush ? BRUSH : {})});
  if (layout.meta?.brush) brushing(plot, layout.meta.brush);
}

// Parallel coordinates: a box over an axis keeps the lines that go through it; boxes over several axes together narrow.
const BRUSH = {modeBarButtons: [["toImage", "select2d"]]};

function brushing(plot, axes) {
  const lines = plot.data.map((trace, index) => [trace.meta?.trial, index]).filter(([trial]) => trial);
  let boxes = {};  // axis -> [low, high]
  const show = () => {
    const through = index => Object.entries(boxes).every(([axis, [low, high]]) => {
      const place = plot.data[index].y[axis];
      return place !== null && place >= low && place <= high;
    });
    const kept = new Set(lines.filter(([, index]) => through(index)).map(([trial]) => trial));
    const shapes = Object.entries(boxes).map(([axis, [y0, y1]]) => ({
      type: "rect", x0: axis - 0.06, x1: +axis + 0.06, y0, y1, fillcolor: "#888", opacity: 0.35, line: {width: 0}}));
    Plotly.restyle(plot, {opacity: lines.map(([trial]) => kept.has(trial) ? 1 : 0.07)}, lines.map(([, index]) => index));
    Plotly.relayout(plot, {shapes, selections: []});
    document.querySelectorAll("#every-trial > .table tbody tr").forEach(row =>
      row.classList.toggle("brushed", !kept.has(row.cells[0].textContent)));
    plot.closest("figure").querySelector("h3").dataset.kept =
      kept.size < lines.length ? ` (${kept.size} of ${lines.length} trials)` : "";
  };
  plot.on("plotly_selected", event => {
    if (!event?.range) return;
    const [left, right] = event.range.x.toSorted((a, b) => a - b), span = event.range.y.toSorted((a, b) => a - b);
    for (let axis = 0; axis < axes; axis++) if (axis >= left && axis <= right) boxes[axis] = span;
    show();
  });
  plot.on("plotly_deselect", () => { boxes = {}; show(); });  // a double click
}

const watch = new IntersectionObserver(entries => {
  for (const entry of entries.filter(entry => entry.isIntersecting)) {
    watch.unobserve(entry.target);
    unpack().then(() => draw(entry.target));
  }
}, {rootMargin: "600px"});
figures.forEach(figure => watch.observe(figure));
(window.requestIdleCallback ?? setTimeout)(unpack);  // so that a page that is printed at once has it

const plots = () => figures.map(figure => figure.querySelector(".plot")).filter(plot => plot.dataset.drawn);
dark.addEventListener("change", () => plots().forEach(plot => Plotly.relayout(plot, colours(plot.layout, dark.matches))));
addEventListener("beforeprint", () => {
  figures.filter(figure => !figure.closest("details:not([open])")).forEach(draw);
  for (const plot of plots()) {
    plot.dataset.height = plot.layout.height;
    const change = {...colours(plot.layout, false), ...fonts(plot.layout, PAPER.font), width: onPaper(plot), autosize: false};
    fit(plot, PAPER.height * plot.layout.height, change);
    asked(plot, false);
  }
});
addEventListener("afterprint", () => plots().forEach(plot => {
  asked(plot, true);
  fit(plot, +plot.dataset.height, {...colours(plot.layout, dark.matches), ...fonts(plot.layout, 13), width: null, autosize: true});
}));

// Names of what a click would show; on paper they only take room.
function asked(plot, named) {
  const first = (trace, index) => plot.data.findIndex(other => other.name === trace.name) === index;
  const indices = plot.data.flatMap((trace, index) => trace.visible === "legendonly" && first(trace, index) ? [index] : []);
  if (indices.length) Plotly.restyle(plot, {showlegend: named}, indices);
}

// How wide a figure is on paper, by how many stand beside it there.
function onPaper(plot) {
  const grid = plot.closest(".grid");
  if (!grid) return PAPER.width;
  const least = PAPER.shrink * (parseFloat(grid.style.getPropertyValue("--least")) || 460);
  const columns = Math.min(grid.children.length, Math.max(1, Math.floor((PAPER.width + PAPER.gap) / (least + PAPER.gap))));
  return (PAPER.width - PAPER.gap * (columns - 1)) / columns;
}

function fonts(layout, size) {
  const change = {"font.size": size};
  for (const axis of Object.keys(layout).filter(key => /^[xy]axis/.test(key))) change[axis + ".title.font.size"] = size;
  return change;
}

function fit(plot, height, change) {
  plot.style.height = height + "px";
  Plotly.relayout(plot, {...change, height});
}

// Tables: a click on a head sorts, again turns round; long ones can be filtered; every one can be saved as CSV.
const number = text => { const found = text.match(/^\s*[-+]?[\d.]+(e[-+]?\d+)?/i); return found ? parseFloat(found[0]) : NaN; };

function compare(first, second) {
  const [a, b] = [number(first), number(second)];
  return isNaN(a) || isNaN(b) ? isNaN(a) - isNaN(b) || first.localeCompare(second) : a - b;
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const text = row => row.cells[column].textContent;
    const rows = [...body.rows].sort((one, two) => (down ? -1 : 1) * compare(text(one), text(two)));
    body.append(...rows);
  }));
}

function saved(table, name) {
  const cell = text => {
    const safe = /^\s*[=+\-@]/.test(text) && isNaN(text) ? "'" + text : text;  // no spreadsheet takes it for a formula
    return '"' + safe.replaceAll('"', '""') + '"';
  };
  const rows = [...table.rows].map(row => [...row.cells].map(found => cell(found.textContent.trim())).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([rows.join("\r\n") + "\r\n"], {type: "text/csv"}));
  link.download = name + ".csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

// A link to a trial opens its drawer.
function opened() {
  const drawer = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (drawer instanceof HTMLDetailsElement) { drawer.open = true; drawer.scrollIntoView(); }
}
addEventListener("hashchange", opened);
opened();

for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table");
  sortable(table);
  box.querySelector(".csv").addEventListener("click", () => saved(table, table.caption?.textContent.trim() || "table"));
  box.querySelector(".filter")?.addEventListener("input", event => {
    const wanted = event.target.value.toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
