// Curves of measurements over the epochs, one line per run and measurement.
import uPlot from "uplot";
import { card, h, numbers, svg } from "./dom.js";
import { cssColor, RUNS } from "./colors.js";
import { tick } from "./format.js";
import { runs, store } from "./store.js";

const DASHES = [[], [4, 4], [1, 4], [8, 3, 1, 3], [12, 4], [2, 2]];

/**
 * A card with a chart.
 *
 * lines(run) gives [{name, of(point), dash, width}]; text(value) formats a value; log: start with a logarithmic axis;
 * pick(epoch): called for a click.
 */
export function curveCard(
  title,
  { lines, text, ticks = tick, log = false, canLog = true, help, pick, className = "", min, max },
) {
  const plot = h("div", { class: "plot" });
  const legend = h("div", { class: "legend" });
  const toggle =
    canLog &&
    h(
      "label",
      { class: "check" },
      h("input", {
        type: "checkbox",
        checked: log,
        onchange: (event) => {
          log = event.target.checked;
          rebuild();
        },
      }),
      "log",
    );
  let chart = null;
  let layout = "";
  let entries = []; // {run, line, value element}

  const twin = numbers(() => {
    const rows = new Map();
    runs().forEach((run, r) => {
      for (const point of thin(run.points, 40)) {
        if (!rows.has(point.epoch)) rows.set(point.epoch, new Map());
        lines(run).forEach((line, k) => rows.get(point.epoch).set(`${r}:${k}`, text(line.of(point))));
      }
    });
    const keys = entries.map(({ r, k }) => `${r}:${k}`);
    if (!rows.size) return null;
    return [
      title,
      ["Epoch", ...entries.map((entry) => entry.name)],
      [...rows]
        .sort((a, b) => a[0] - b[0])
        .map(([epoch, values]) => [epoch.toFixed(2), ...keys.map((key) => values.get(key) ?? "")]),
    ];
  });

  function data() {
    const tables = runs().map((run) => {
      const points = run.points;
      return [
        points.map((point) => point.epoch),
        ...lines(run).map((line) => points.map((point) => positive(line.of(point)))),
      ];
    });
    const filled = tables.filter((each) => each[0].length);
    if (!filled.length) return [[0, 1], ...entries.map(() => [null, null])];
    if (tables.length === 1) return tables[0];
    return uPlot.join(tables.map((each) => (each[0].length ? each : [[0], ...each.slice(1).map(() => [null])])));
  }

  const positive = (value) => (value === undefined || value === null || (log && value <= 0) ? null : value);

  function build() {
    chart?.destroy();
    entries = runs().flatMap((run, r) =>
      lines(run).map((line, k) => ({
        r,
        k,
        line,
        name: runs().length > 1 ? `${RUNS[r].letter} ${line.name}` : line.name,
      })),
    );
    legend.replaceChildren(
      ...entries.map((entry) => {
        entry.value = h("b", {}, "");
        const sample = svg(
          "svg",
          { class: `sample ${RUNS[entry.r].className} ${entry.line.shade ? "pale" : ""}`, "aria-hidden": "true" },
          svg("line", { x2: "100%", y1: "50%", y2: "50%", "stroke-dasharray": DASHES[entry.line.dash ?? 0].join(" ") }),
        );
        return h("span", {}, sample, `${entry.name} `, entry.value);
      }),
    );
    const axis = {
      stroke: () => cssColor("--muted"),
      grid: { stroke: () => cssColor("--line"), width: 1 },
      ticks: { show: false },
      font: font(),
    };
    chart = new uPlot(
      {
        ...size(),
        padding: [8, 10, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
        scales: {
          x: { time: false, range: (_, low, high) => [Math.min(0, low), Math.max(high, low + 0.05, 0.05)] },
          y: { distr: log ? 3 : 1, range: log ? logRange : (u, low, high) => range(low, high, min, max) },
        },
        axes: [
          { ...axis, space: em(4.5), size: em(2.5), values: (_, splits) => splits.map((value) => (value === 0 ? "epoch 0" : tick(value))) },
          {
            ...axis,
            size: em(5),
            space: em(2.5),
            grid: { ...axis.grid, ...(log && { filter: decades }) },
            values: (_, splits) => splits.map(ticks),
          },
        ],
        series: [
          {},
          ...entries.map(({ r, line }) => ({
            stroke: () => cssColor(line.shade ? `${RUNS[r].color}-pale` : RUNS[r].color),
            width: line.width ?? 2,
            dash: DASHES[line.dash ?? 0],
            spanGaps: true,
            points: {
              show: (u, i) => u.data[i].filter((value) => value !== null && value !== undefined).length < 3,
              size: 5,
            },
          })),
        ],
        hooks: { setCursor: [showValues], draw: [drawSelection] },
      },
      data(),
      plot,
    );
    chart.over.addEventListener("click", () => {
      if (pick && chart.cursor.left >= 0) pick(chart.posToVal(chart.cursor.left, "x"));
    });
    chart.over.classList.toggle("clickable", Boolean(pick));
    showValues(chart);
  }

  function showValues(u) {
    const index = u.cursor.idx;
    entries.forEach((entry, i) => {
      const values = u.data[i + 1];
      let value = index === null || index === undefined ? null : values[index];
      if (value === null || value === undefined) {
        // no cursor, or not measured there: the last one before
        for (let k = index ?? values.length - 1; k >= 0 && (value === null || value === undefined); k--)
          value = values[k];
      }
      entry.value.textContent = value === null || value === undefined ? "" : text(value);
    });
  }

  /** A vertical line at the epoch whose weights are shown. */
  function drawSelection(u) {
    if (store.epoch === null) return;
    const x = u.valToPos(store.epoch, "x", true);
    const { ctx, bbox } = u;
    ctx.save();
    ctx.strokeStyle = cssColor("--ink");
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
  }

  const size = () => ({ width: Math.max(120, plot.clientWidth), height: Math.max(90, plot.clientHeight) });
  /** Pixels: a multiple of the font size of the axes, which grows with that of the page. */
  const em = (n) => Math.round(n * 0.75 * parseFloat(getComputedStyle(document.documentElement).fontSize));
  const font = () => `${em(1)}px system-ui, sans-serif`;

  function rebuild() {
    layout = "";
    update();
  }

  function update() {
    if (!plot.clientWidth || !runs().length) return;
    const needed =
      runs()
        .map((run) => `${run.id}:${lines(run).length}`)
        .join() + log + font();
    if (needed !== layout) {
      layout = needed;
      build();
    } else {
      chart.setData(data());
      showValues(chart);
    }
    plot.setAttribute(
      "aria-label",
      `${title}: ${entries.map((entry) => `${entry.name} ${entry.value.textContent || "no value yet"}`).join(", ")}`,
    );
    twin.refresh();
  }

  plot.setAttribute("role", "img");
  new ResizeObserver(() => {
    if (!plot.clientWidth) return;
    if (layout.endsWith(font())) chart.setSize(size());
    else update();
  }).observe(plot);

  const root = card(
    title,
    { class: `curve-card ${className}`, help, tools: h("div", { class: "tools" }, legend, toggle) },
    plot,
    twin,
  );
  return { root, update, rebuild, redraw: () => chart?.redraw() };
}

/** Grid lines of a logarithmic axis: powers of ten. */
const decades = (u, splits) =>
  splits.map((split) =>
    split > 0 && Math.abs(Math.log10(split) - Math.round(Math.log10(split))) < 1e-6 ? split : null,
  );

function logRange(u, low, high) {
  return low === null || high === null ? [0.1, 10] : uPlot.rangeLog(low, Math.max(high, 1.5 * low), 10, false);
}

function range(low, high, min, max) {
  if (low === null || high === null) return [min ?? 0, max ?? 1];
  const pad = 0.06 * (high - low) || 0.05;
  return [Math.max(low - pad, min ?? -Infinity), Math.min(high + pad, max ?? Infinity)];
}

/** At most n of the points, evenly, with the last one. */
function thin(points, n) {
  const step = Math.max(1, Math.ceil(points.length / n));
  return points.filter((_, i) => i % step === 0 || i === points.length - 1);
}
