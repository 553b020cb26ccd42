// Gradients per layer, and shares of units that are saturated or dead: bars with numbers, measured while the network trains.
import { card, h, numbers, show } from "./dom.js";
import { RUNS } from "./colors.js";
import { layerName, number, percent } from "./format.js";
import { last, runs } from "./store.js";
import { parameterLayers } from "./weights.js";

const LOW = -7; // decades of the bars
const HIGH = 1;

/** Rows of bars: a group per layer, a bar per run. rows = [{name, bars: [{run, share, text}]}] */
function barRows(rows) {
  return rows.map(({ name, bars }) =>
    h(
      "div",
      { class: "hbar" },
      h("span", { class: "name" }, name),
      h(
        "div",
        { class: "tracks" },
        bars.map(({ run, share, text }) => {
          const fill = h("i", { class: RUNS[run].className });
          fill.style.setProperty("--share", Number.isFinite(share) ? Math.min(1, Math.max(0, share)) : 0);
          return h("div", { class: "line" }, h("span", { class: "track" }, fill), h("span", { class: "value" }, text));
        }),
      ),
    ),
  );
}

const longest = (lists) => lists.reduce((best, list) => (list.length > best.length ? list : best), []);

/** Names of the layers in a list of measurements, one per layer with weights. */
function layerNames(count) {
  const names = longest(runs().map((run) => parameterLayers(run).map((layer) => layerName(layer.name))));
  return Array.from({ length: count }, (_, i) => names[i] ?? `Layer ${i + 1}`);
}

function measured(name) {
  return runs().map((run) => last(run)?.[name] ?? []);
}

function layered(name, share, text, label) {
  const values = measured(name);
  const n = Math.max(0, ...values.map((list) => list.length));
  const rows = label(n).map((title, i) => ({
    name: title,
    i,
    bars: values.map((list, run) => ({ run, share: share(list[i]), text: text(list[i]) })),
  }));
  return rows.filter(({ i }) => values.some((list) => list[i] !== null && list[i] !== undefined));
}

/** Names of the layers in the lists of saturated and dead units: the activations, and the sigmoid of the output. */
function activationNames(count) {
  const lists = runs().map((run) => run.layers.filter((layer) => ["activation", "output"].includes(layer.kind)));
  const kinds = longest(lists);
  return Array.from({ length: count }, (_, i) => (kinds[i]?.kind === "output" ? "Output" : `Hidden layer ${i + 1}`));
}

export function gradientCard() {
  const body = h("div", { class: "hbars" });
  const twin = numbers(() => {
    const values = measured("gradient_norms");
    const ratios = measured("update_ratios");
    const names = layerNames(Math.max(...values.map((list) => list.length), 0));
    if (!names.length) return null;
    return [
      "Gradients per layer",
      [
        "Layer",
        ...runs().flatMap((_, r) => [
          `Gradient norm${runs().length > 1 ? ` ${RUNS[r].letter}` : ""}`,
          "Update / weight",
        ]),
      ],
      names.map((name, i) => [name, ...runs().flatMap((_, r) => [number(values[r][i]), number(ratios[r]?.[i])])]),
    ];
  });
  const root = card(
    "Norm of the gradient in each layer",
    {
      class: "gradient-card",
      help: "How strongly the loss depends on the weights of each layer, measured on the same 100 examples each time. The scale is logarithmic. If the first layers have much shorter bars, they learn much more slowly.",
    },
    body,
    h(
      "p",
      { class: "axis", "aria-hidden": "true" },
      [LOW, -5, -3, -1, HIGH].map((e) => h("span", {}, e === 0 ? "1" : `10${superscript(e)}`)),
    ),
    twin,
  );
  function update() {
    const share = (value) => (value > 0 ? (Math.log10(value) - LOW) / (HIGH - LOW) : 0);
    show(body, barRows(layered("gradient_norms", share, (value) => number(value), layerNames)));
    if (!body.childElementCount)
      show(
        body,
        h("p", { class: "empty" }, "Start the training, or train on one mini-batch, to measure the gradients."),
      );
    twin.refresh();
  }
  return { root, update };
}

const superscript = (n) => [...String(n)].map((c) => ({ "-": "⁻" })[c] ?? "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join("");

const NOT_DEFINED = {
  saturated: "Only sigmoid and tanh saturate: the other activations have no upper end.",
  dead: "Only ReLU units can be dead.",
};

export function unitsCard() {
  const saturated = h("div", { class: "hbars" });
  const dead = h("div", { class: "hbars" });
  const twin = numbers(() => {
    const [a, b] = [measured("saturated"), measured("dead")];
    const n = Math.max(0, ...a.map((list) => list.length));
    if (!n) return null;
    return [
      "Saturated and dead units",
      ["Layer", ...runs().flatMap((_, r) => [`Saturated${runs().length > 1 ? ` ${RUNS[r].letter}` : ""}`, "Dead"])],
      activationNames(n).map((name, i) => [name, ...runs().flatMap((_, r) => [percent(a[r][i]), percent(b[r]?.[i])])]),
    ];
  });
  const root = card(
    "Saturated and dead units",
    { class: "units-card" },
    h("h3", {}, "Saturated"),
    h(
      "p",
      { class: "help" },
      "Share of activations within 1 % of an end of the range of sigmoid or tanh. The derivative is almost 0 there, so that these units hardly learn.",
    ),
    saturated,
    h("h3", {}, "Dead"),
    h(
      "p",
      { class: "help" },
      "Share of ReLU units that are 0 for each of the 100 examples. Their gradient is 0, so that they do not learn.",
    ),
    dead,
    twin,
  );
  function update() {
    const identity = (value) => value;
    for (const [name, element] of [
      ["saturated", saturated],
      ["dead", dead],
    ]) {
      const measurable = measured(name)
        .flat()
        .some((value) => value !== null && value !== undefined);
      if (measurable) show(element, barRows(layered(name, identity, (value) => percent(value), activationNames)));
      else show(element, h("p", { class: "empty" }, runs().some(last) ? NOT_DEFINED[name] : "Not measured yet."));
    }
    twin.refresh();
  }
  return { root, update };
}

/** Lines for the chart of gradient norms: one per layer. */
export const gradientLines = (run) =>
  parameterLayers(run).map((layer, i) => ({
    name: layerName(layer.name),
    of: (point) => point.gradient_norms?.[i],
    dash: i % 6,
  }));
