// One forward pass, one backward pass and one step of gradient descent, with the numbers at each layer.
import { bytes, getFloats, getJson, Latest, query } from "./api.js";
import { card, choice, h, numbers, show, svg, toast } from "./dom.js";
import { fixed, layerName, number } from "./format.js";
import { canvas, paintActivations, paintImage } from "./pixels.js";
import { RUNS } from "./colors.js";
import { isImage, isRunning, on, runs, store } from "./store.js";
import { parameterLayers, unitImages } from "./weights.js";

const EXAMPLE = "2-2-1";
const AGAIN = "Forward again"; // title of the last step
const DECIMALS = 4; // as in the tutorial with the same network
const RADIUS = 44; // of a unit in the diagram

export function walkthroughView() {
  const latest = new Latest();
  const list = h("ol", { class: "step-list" });
  const title = h("h2", { class: "step-title" });
  const equation = h("p", { class: "equation" });
  const picture = h("div", { class: "step-picture" });
  const hint = h("p", { class: "note", hidden: true }, "Scroll the picture sideways to see the whole network.");
  const values = h("div", { class: "step-values" });
  const position = h("p", { class: "note", role: "status" });
  const back = h(
    "button",
    { type: "button", id: "step-back", onclick: () => go(at - 1), title: "Previous step (left arrow)" },
    "← Back",
  );
  const next = h(
    "button",
    { type: "button", id: "step-next", class: "primary", onclick: () => go(at + 1), title: "Next step (right arrow)" },
    "Next →",
  );
  const chooser = h("div", { class: "tools" });
  let source = EXAMPLE; // the example, or the index of a run
  let steps = [];
  let example = null; // {pixels, label} of an image
  let weights = null; // of the first layer of a network of images
  let at = 0;

  function build() {
    const options = [
      [EXAMPLE, "2-2-1 network"],
      ...runs().map((run, i) => [i, runs().length > 1 ? `Run ${RUNS[i].letter}` : "This network"]),
    ];
    if (source !== EXAMPLE && source >= runs().length) source = EXAMPLE;
    show(
      chooser,
      choice("Network", options, source, (value) => {
        source = value;
        at = 0;
        load();
      }),
    );
    if (store.view === "steps") load();
  }

  function load() {
    latest.ask(async () => {
      try {
        const asked = source === EXAMPLE ? { example: EXAMPLE } : { run: runs()[source].id };
        const [answer, first] = await Promise.all([
          getJson(`/api/walkthrough${query(asked)}`),
          asked.run && isImage() && getFloats(`/api/runs/${asked.run}/weights${query({ layer: 0 })}`),
        ]);
        steps = answer.steps;
        weights = first;
        example = answer.pixels ? answer : null;
        show(
          list,
          steps.map((step, i) =>
            h(
              "li",
              {},
              h("button", { type: "button", onclick: () => go(i), class: phase(step) }, layerName(step.title)),
            ),
          ),
        );
        go(Math.min(at, steps.length - 1));
      } catch (error) {
        toast(error.message, "error");
      }
    });
  }

  const phase = (step) =>
    step.title.startsWith("Backward") ? "backward" : step.title.startsWith("Step") ? "update" : "forward";

  function go(i) {
    if (i < 0 || i >= steps.length) return;
    at = i;
    const step = steps[at];
    [...list.children].forEach((item, k) => {
      item.firstChild.setAttribute("aria-current", k === at ? "step" : "false");
    });
    const button = list.children[at]?.firstChild;
    if (button && list.scrollHeight > list.clientHeight) list.scrollTop = button.offsetTop - list.clientHeight / 2;
    title.textContent = layerName(step.title);
    equation.textContent = step.equation.replaceAll("-", "−");
    position.textContent = `Step ${at + 1} of ${steps.length}`;
    back.disabled = at === 0;
    next.disabled = at === steps.length - 1;
    if (document.activeElement.matches("button:disabled:focus-visible")) (at === 0 ? next : back).focus();
    show(
      values,
      Object.entries(step.values).map(([name, value]) => valueFigure(name, value, step)),
    );
    show(picture, diagram(steps, at));
    scrollToActive();
    if (source !== EXAMPLE) showImages(step);
  }

  /** On a narrow screen, the part of the diagram that this step computes. */
  function scrollToActive() {
    const active = [...picture.querySelectorAll(".active")].map((each) => each.getBoundingClientRect());
    if (!active.length) return;
    const middle = (Math.min(...active.map((box) => box.left)) + Math.max(...active.map((box) => box.right))) / 2;
    const frame = picture.getBoundingClientRect();
    picture.scrollLeft += middle - (frame.left + frame.right) / 2;
  }

  new ResizeObserver(() => {
    hint.hidden = picture.scrollWidth <= picture.clientWidth;
  }).observe(picture);

  /** Large arrays of a network of images, as images: the input, and the weights of the first layer. */
  function showImages(step) {
    const run = runs()[source];
    if (step === steps[0] && example) {
      const image = canvas(`The example: a ${run.classes[example.label]}`, "large");
      paintImage(image, bytes(example.pixels));
      show(picture, image);
    }
    const position = parameterLayers(run).findIndex((layer) => layer.index === step.layer);
    if (position !== 0 || !weights || !step.title.startsWith("Forward") || !step.values.W) return;
    show(picture, h("div", { class: "unit-images" }, unitImages(run, weights.values, weights.shape, 24)));
  }

  on("experiment", build);
  on("status", () => {
    // After a step of the training, the numbers are those of the new weights.
    if (store.view === "steps" && source !== EXAMPLE && !isRunning()) load();
  });
  const root = h(
    "div",
    { class: "view steps-view" },
    card(
      "Steps",
      {
        class: "steps-card",
        tools: chooser,
        help: "Follow one example through the network: forward to the loss, backward to the gradients, and one step of gradient descent.",
      },
      list,
    ),
    h(
      "section",
      { class: "card step-card", "aria-live": "polite" },
      h("header", {}, title, h("div", { class: "buttons" }, back, next)),
      position,
      equation,
      hint,
      picture,
      values,
    ),
  );
  return { root, load, next: () => go(at + 1), back: () => go(at - 1), redraw: () => steps.length && go(at) };
}

/** One array of a step: numbers if it is small, a picture and numbers if it is long, a summary if it is large. */
function valueFigure(name, value, step) {
  const shape = value.shape.join(" × ");
  const caption = h("figcaption", {}, h("code", {}, name), h("small", {}, shape === "1" ? "" : ` ${shape}`));
  if (!value.all) {
    return h(
      "figure",
      { class: "value" },
      caption,
      h("p", {}, `from ${number(value.min)} to ${number(value.max)}`),
      h("p", { class: "help" }, `first numbers: ${value.first.map((each) => number(each)).join(", ")}, …`),
    );
  }
  const flat = value.all.flat();
  if (value.shape.length === 1 && flat.length > 12) {
    const image = canvas(`${name}: ${flat.length} numbers`, "activations");
    const { width } = paintActivations(image, flat);
    image.style.setProperty("--columns", width);
    return h(
      "figure",
      { class: "value" },
      caption,
      image,
      numbers(() => [
        `${name} in: ${layerName(step.title)}`,
        ["Index", "Value"],
        flat.map((each, i) => [i, number(each, 4)]),
      ]),
    );
  }
  const rows = value.shape.length === 2 ? value.all : value.all.map((each) => [each]);
  const largest = Math.max(...flat.map(Math.abs));
  const text = largest === 0 || (largest >= 0.01 && largest < 1e4) ? (each) => fixed(each, DECIMALS) : (each) => number(each, 4);
  return h(
    "figure",
    { class: "value" },
    caption,
    h(
      "table",
      { class: "array" },
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            row.map((each) => h("td", {}, text(each))),
          ),
        ),
      ),
    ),
  );
}

const columnNames = (sizes) => [
  "input",
  ...sizes.slice(1, -1).map((_, i) => (sizes.length > 3 ? `hidden layer ${i + 1}` : "hidden layer")),
  "output layer",
  "loss",
];

/** The network as nodes and edges with their numbers, if it is small enough. */
function diagram(steps, at) {
  const layers = []; // per Dense layer: {W, dW, z, a, dz, da, layer}
  const sizes = [];
  let input = null;
  let output = {};
  for (const step of steps) {
    const W = step.values.W;
    if (!step.title.startsWith("Forward") || !W) continue;
    if (!W.all || W.shape[0] > 4 || W.shape[1] > 4) return null;
    if (!sizes.length) sizes.push(W.shape[1]);
    sizes.push(W.shape[0]);
    layers.push({ layer: step.layer });
  }
  if (!layers.length) return null;
  const fresh = new Set(); // what this step computes
  let dense = -1;
  steps.slice(0, at + 1).forEach((step, k) => {
    const mark = (key) => k === at && fresh.add(key);
    const v = step.values;
    const forward = step.title.startsWith("Forward");
    const index = layers.findIndex((each) => each.layer === step.layer);
    if (k === 0) {
      input = v.x.all;
      mark("x");
    } else if (step.title === AGAIN) {
      layers.forEach((each, l) => {
        const { layer, W, b, newW = W, newb = b } = each;
        layers[l] = { layer, W: newW, b: newb, z: v[`z${l + 1}`]?.all, a: v[`a${l + 1}`]?.all };
        mark(`z${l}`);
      });
      output = { ...output, p: v.p.all, L: v.L.all[0] };
      mark("p");
    } else if (forward && v.W) {
      dense = index;
      Object.assign(layers[dense], { W: v.W.all, b: v.b.all, z: v[`z${dense + 1}`]?.all });
      mark(`z${dense}`);
    } else if (forward) {
      const a = v[`a${dense + 1}`];
      if (a) {
        layers[dense].a = a.all;
        mark(`a${dense}`);
      }
    } else if (v.p) {
      output = { p: v.p.all, t: v.t?.all, L: v.L?.all[0] };
      mark("p");
    } else if (step.title.startsWith("Step") && index >= 0) {
      Object.assign(layers[index], { newW: v.W?.all, newb: v.b?.all });
      mark(`W${index}`);
    } else {
      for (const [name, value] of Object.entries(v)) {
        const found = name.match(/^d([za])(\d+)$/);
        if (found && value.all) {
          const target = layers[Number(found[2]) - 1];
          if (target) {
            if (!target[`d${found[1]}`]) mark(`d${found[1]}${Number(found[2]) - 1}`);
            target[`d${found[1]}`] = value.all;
          }
        }
      }
      if (v.dW && index >= 0) {
        layers[index].dW = v.dW.all;
        mark(`dW${index}`);
      }
    }
  });

  const names = columnNames(sizes);
  const most = Math.max(...sizes);
  const isSmall = most < 3; // there is space for two lines at each weight
  const spacing = isSmall ? 156 : 124;
  const width = 820;
  const height = isSmall ? 350 : spacing * most + 50;
  const columns = sizes.length + 1;
  const x = (column) => 70 + (column * (width - 140)) / (columns - 1);
  const y = (i, n) => height / 2 + 12 + (i - (n - 1) / 2) * spacing;
  const text = (value) => fixed(value, DECIMALS);
  // The values of the units belong to the weights before the step. If there is no space for both weights, the values
  // are left out until the next forward pass.
  const isStale = !isSmall && layers.some((each) => each.newW);
  const edges = [];
  const labels = [];
  layers.forEach((each, l) => {
    for (let i = 0; i < sizes[l + 1]; i++) {
      for (let j = 0; j < sizes[l]; j++) {
        const changed = each.newW?.[i][j];
        const w = isSmall ? each.W?.[i][j] : (changed ?? each.W?.[i][j]);
        const [x1, y1, x2, y2] = [x(l) + RADIUS, y(j, sizes[l]), x(l + 1) - RADIUS, y(i, sizes[l + 1])];
        const active = fresh.has(`z${l}`) || fresh.has(`dW${l}`) || fresh.has(`W${l}`);
        edges.push(
          svg("line", {
            x1,
            y1,
            x2,
            y2,
            class: `edge ${w < 0 ? "negative" : "positive"} ${active ? "active" : ""}`,
            "stroke-width": w === undefined ? 1 : 1 + Math.min(5, 2.5 * Math.abs(w)),
          }),
        );
        // Labels near the side with more units, so that they do not overlap.
        const between = 0.62 / Math.min(sizes[l], sizes[l + 1]);
        const t = isSmall ? 0.28 : sizes[l] >= sizes[l + 1] ? 0.2 + between * i : 0.8 - between * j;
        const [tx, ty] = [x1 + t * (x2 - x1), y1 + t * (y2 - y1)];
        if (w === undefined) continue;
        labels.push(svg("text", { x: tx, y: ty - 5, class: `weight ${active ? "active" : ""}` }, text(w)));
        const second = each.newW ? `→ ${text(changed)}` : each.dW && `dW ${text(each.dW[i][j])}`;
        if (isSmall && second)
          labels.push(svg("text", { x: tx, y: ty + 12, class: each.newW ? "weight active" : "gradient" }, second));
      }
    }
  });
  /** A circle with lines of text inside, and one above and one below. */
  const node = (column, i, n, lines, active, above, below) => {
    const [cx, cy] = [x(column), y(i, n)];
    const shown = lines.filter(Boolean);
    return svg(
      "g",
      { class: `node ${active ? "active" : ""}` },
      svg("circle", { cx, cy, r: RADIUS }),
      shown.map(([line, kind], k) =>
        svg("text", { x: cx, y: cy + 5 + (k - (shown.length - 1) / 2) * 17, class: kind }, line),
      ),
      above && svg("text", { x: cx, y: cy - RADIUS - 6, class: "bias" }, above),
      below && svg("text", { x: cx, y: cy + RADIUS + 15, class: "gradient" }, below),
    );
  };
  const nodes = [];
  for (let i = 0; i < sizes[0]; i++)
    nodes.push(node(0, i, sizes[0], [input && [`x ${text(input[i])}`, "main"]], fresh.has("x")));
  layers.forEach((each, l) => {
    for (let i = 0; i < sizes[l + 1]; i++) {
      const gradient = each.dz ?? each.da;
      const changed = each.newb && (isSmall ? `${text(each.b[i])} → ${text(each.newb[i])}` : text(each.newb[i]));
      nodes.push(
        node(
          l + 1,
          i,
          sizes[l + 1],
          isStale
            ? []
            : [
                each.z && [`z ${text(each.z[i])}`, each.a ? "sub" : "main"],
                each.a && [`a ${text(each.a[i])}`, "main"],
              ],
          ["z", "a", "dz", "da"].some((key) => fresh.has(`${key}${l}`)),
          each.b && `b ${changed ?? text(each.b[i])}`,
          gradient && `${each.dz ? "dz" : "da"} ${text(gradient[i])}`,
        ),
      );
    }
  });
  const isOne = output.p?.length === 1;
  nodes.push(
    node(
      columns - 1,
      0,
      1,
      output.p && !isStale
        ? [
            ...output.p.slice(0, 2).map((each, k) => [`p${isOne ? "" : "₀₁"[k]} ${text(each)}`, "main"]),
            isOne && [`t ${text(output.t?.[0])}`, "sub"],
            [`L ${text(output.L)}`, "sub"],
          ]
        : [["loss", "sub"]],
      fresh.has("p"),
    ),
  );
  const link =
    sizes.at(-1) === 1 &&
    svg("line", {
      x1: x(columns - 2) + RADIUS,
      y1: height / 2 + 12,
      x2: x(columns - 1) - RADIUS,
      y2: height / 2 + 12,
      class: `edge ${fresh.has("p") ? "active" : ""}`,
      "stroke-width": 1,
    });
  return svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      class: `diagram ${isSmall ? "" : "tall"}`,
      "aria-label": `Network ${sizes.join("-")} at this step: ${layerName(steps[at].title)}`,
    },
    names.map((name, column) => svg("text", { x: x(column), y: 16, class: "sub" }, name)),
    edges,
    link,
    nodes,
    labels,
  );
}
