// Weights as images. Each hidden unit of the first layer has one weight per pixel: its image shows what the unit looks for.
// After HOG, it has one weight per direction and cell.
import { getFloats, Latest, query } from "./api.js";
import { card, h, numbers, show } from "./dom.js";
import { RUNS } from "./colors.js";
import { fixed, number } from "./format.js";
import { canvas, compass, paintWeights, scaleOf } from "./pixels.js";
import { imageShape, isImage, runs, store } from "./store.js";

const FIRST = 60; // tiles that are shown until the person asks for all
const FIRST_HOG = 24; // larger tiles, because each of them consists of 8 images

/** The layers of a run that have parameters, as in the lists of gradients. */
export const parameterLayers = (run) => run.layers.filter((layer) => layer.n_parameters > 0);

/** The layers of a run that have a matrix of weights. position counts the layers with parameters. */
const weightLayers = (run) =>
  parameterLayers(run)
    .map((layer, position) => ({ ...layer, position }))
    .filter((layer) => layer.kind === "dense");

/** The legend of the diverging colours. */
export function scaleLegend() {
  const bar = canvas("Colours of weights: blue is negative, orange is positive", "legend-bar");
  const draw = () =>
    paintWeights(
      bar,
      Array.from({ length: 41 }, (_, i) => (i - 20) / 20),
      41,
      1,
      1,
    );
  const low = h("span", {}, "negative");
  const high = h("span", {}, "positive");
  return {
    root: h("div", { class: "scale" }, low, bar, high),
    draw,
    set(scale) {
      low.textContent = `−${number(scale, 2)}`;
      high.textContent = `+${number(scale, 2)}`;
    },
  };
}

/** Whether the inputs of the first weights of a run are histograms of oriented gradients. */
const hasHog = (run) => run.layers[0].kind === "hog";

/** Paint the weights of a unit of the first layer as an image of pixels, or of the cells of the 8 directions of HOG. */
function paintUnit(run, picture, weights, scale) {
  const [height, width] = imageShape(weights.length);
  const image = hasHog(run) ? compass(weights) : { values: weights, width, height };
  paintWeights(picture, image.values, image.width, image.height, scale);
}

/** Paint the weights of up to `most` units of the first layer as images: an element for each unit. */
export function unitImages(run, values, [n, m], most) {
  const scale = scaleOf(values);
  return Array.from({ length: Math.min(n, most) }, (_, i) => {
    const picture = canvas(`Weights of unit ${i}`, "unit-image");
    paintUnit(run, picture, values.subarray(i * m, (i + 1) * m), scale);
    return picture;
  });
}

/** A card with the weights of the first layer of a run as images, one tile per hidden unit, and its activation for the drawing. */
export function firstWeightsCard(r) {
  const latest = new Latest(200);
  const tiles = h("div", { class: "tiles" });
  const legend = scaleLegend();
  const more = h("button", {
    type: "button",
    class: "quiet",
    hidden: true,
    onclick: () => {
      all = true;
      update();
    },
  });
  let all = false;
  let shown = null; // {values, shape}
  let elements = [];
  let selected = null;
  const detail = h("div", { class: "unit-detail" });
  const help = h("p", { class: "help" });
  const twin = numbers(() => {
    if (!shown) return null;
    const [n, m] = shown.shape;
    return [
      "Weights of each hidden unit",
      ["Unit", "Smallest", "Largest", "Norm", "Activation"],
      Array.from({ length: n }, (_, i) => {
        const row = shown.values.subarray(i * m, (i + 1) * m);
        return [
          i,
          fixed(
            row.reduce((a, b) => Math.min(a, b)),
            3,
          ),
          fixed(
            row.reduce((a, b) => Math.max(a, b)),
            3,
          ),
          fixed(Math.hypot(...row), 3),
          number(activation(i)),
        ];
      }),
    ];
  });

  const activations = () =>
    store.predictions[r]?.layers?.find(
      (layer) => layer.kind === "activation" && layer.values.length === shown?.shape[0],
    )?.values ?? null;
  const activation = (i) => activations()?.[i] ?? null;

  function update() {
    const run = runs()[r];
    root.hidden = !run || !isImage();
    if (root.hidden) return;
    latest.ask(async () => {
      const { epoch } = store;
      if (run !== runs()[r] || (epoch !== null && shown?.epoch === epoch)) return;
      try {
        const answer = await getFloats(`/api/runs/${run.id}/weights${query({ layer: 0, epoch })}`);
        if (run !== runs()[r]) return;
        shown = { ...answer, epoch };
        latest.pause = Math.min(1500, Math.max(200, answer.values.length / 300)); // large layers less often, so that the training is not slower
        draw();
      } catch {
        // the next point asks again
      }
    });
  }

  function draw() {
    if (!shown) return;
    const [n, m] = shown.shape;
    const run = runs()[r];
    const visible = all ? n : Math.min(n, hasHog(run) ? FIRST_HOG : FIRST);
    if (elements.length !== visible) {
      elements = Array.from({ length: visible }, (_, i) => {
        const picture = canvas("", "tile-picture");
        picture.setAttribute("aria-hidden", "true");
        const meter = h("i", { class: "meter" });
        const button = h("button", { type: "button", class: "tile", onclick: () => choose(i) }, picture, meter);
        return { picture, meter, button };
      });
      show(
        tiles,
        elements.map((element) => element.button),
      );
    }
    more.hidden = visible === n;
    more.textContent = `Show all ${n} units`;
    const scale = scaleOf(shown.values);
    elements.forEach(({ picture }, i) =>
      paintUnit(run, picture, shown.values.subarray(i * m, (i + 1) * m), scale),
    );
    legend.draw();
    legend.set(scale);
    drawActivations();
    twin.refresh();
  }

  function drawActivations() {
    const values = activations();
    const largest = values ? Math.max(...values.map(Math.abs), 1e-12) : 1;
    const top = largest <= 1 && largest > 0.3 ? 1 : largest;
    elements.forEach(({ meter, button }, i) => {
      const value = values?.[i] ?? 0;
      meter.style.setProperty("--share", Math.min(1, Math.abs(value) / top));
      button.setAttribute("aria-label", `Hidden unit ${i}${values ? `, activation ${number(value)}` : ""}`);
      button.title = `Unit ${i}${values ? ` · activation ${number(value)}` : ""}`;
      button.setAttribute("aria-pressed", String(selected === i));
    });
    drawDetail();
  }

  function choose(i) {
    selected = selected === i ? null : i;
    drawActivations();
  }

  function drawDetail() {
    if (selected === null || !shown || selected >= shown.shape[0]) {
      show(detail);
      return;
    }
    const [, m] = shown.shape;
    const run = runs()[r];
    const row = shown.values.subarray(selected * m, (selected + 1) * m);
    const picture = canvas(`Weights of unit ${selected}`, "large");
    paintUnit(run, picture, row, scaleOf(shown.values));
    const value = activation(selected);
    show(
      detail,
      picture,
      h(
        "div",
        {},
        h("h3", {}, `Hidden unit ${selected}`),
        h(
          "p",
          {},
          hasHog(run)
            ? "Each of the 8 squares is for edges in one direction: on the right, for ink that increases to the right. Such an edge in an orange cell increases the weighted input z of this unit, in a blue cell it decreases z."
            : "Ink on an orange pixel increases the weighted input z of this unit, ink on a blue pixel decreases it.",
        ),
        h(
          "p",
          {},
          `Weights from ${fixed(
            row.reduce((a, b) => Math.min(a, b)),
            2,
          )} to ${fixed(
            row.reduce((a, b) => Math.max(a, b)),
            2,
          )}.`,
          value === null ? "" : ` Activation for the drawing: ${number(value)}.`,
        ),
      ),
    );
  }

  const root = card(
    "Weights of the first layer",
    {
      class: `weights-card ${RUNS[r].className}`,
      tools: h("div", { class: "tools" }, h("span", { class: "run-name" }), legend.root),
    },
    help,
    tiles,
    more,
    detail,
    twin,
  );
  return {
    root,
    update,
    draw,
    drawActivations,
    reset() {
      shown = null;
      all = false;
      selected = null;
      root.querySelector(".run-name").textContent = runs().length > 1 ? `Run ${RUNS[r].letter}` : "";
      const run = runs()[r];
      const what =
        run && hasHog(run)
          ? "One image per hidden unit: the weights for edges in 8 directions, each in its square of cells."
          : "One image per hidden unit: the weight of each pixel.";
      tiles.classList.toggle("large-tiles", Boolean(run && hasHog(run)));
      help.textContent = `${what} The line under an image is the activation of the unit for your drawing.`;
    },
  };
}

/** A card with the weights of one of the later layers of a run as a matrix. */
export function matrixCard() {
  const picture = canvas("Weights as a matrix", "matrix");
  const legend = scaleLegend();
  const caption = h("p", { class: "help" });
  const chooser = h("div", { class: "tools" });
  const latest = new Latest(250);
  let layer = 1;
  let shown = null;
  const twin = numbers(() => {
    if (!shown) return null;
    const [n, m] = shown.shape;
    const columns = Math.min(m, 40);
    return [
      `Weights; one row per output${columns < m ? `, the first ${columns} inputs` : ""}`,
      ["Output", ...Array.from({ length: columns }, (_, j) => String(j))],
      Array.from({ length: n }, (_, i) => [
        i,
        ...Array.from({ length: columns }, (_, j) => fixed(shown.values[i * m + j], 3)),
      ]),
    ];
  });

  function build() {
    const run = runs()[store.run] ?? runs()[0];
    const layers = weightLayers(run);
    layer = Math.min(Math.max(layer, isImage() ? 1 : 0), layers.length - 1);
    shown = null;
    const element = h(
      "select",
      {
        "aria-label": "Layer whose weights are shown",
        onchange: () => {
          layer = Number(element.value);
          update();
        },
      },
      layers.map((each, i) => h("option", { value: i }, each.name)),
    );
    element.value = String(layer);
    show(chooser, element, legend.root);
  }

  function update() {
    const run = runs()[store.run] ?? runs()[0];
    if (!run) return;
    latest.ask(async () => {
      try {
        const answer = await getFloats(
          `/api/runs/${run.id}/weights${query({ layer: weightLayers(run)[layer]?.position ?? 0, epoch: store.epoch })}`,
        );
        shown = answer;
        draw();
      } catch {
        // the next point asks again
      }
    });
  }

  function draw() {
    if (!shown) return;
    const [n, m] = shown.shape;
    const scale = scaleOf(shown.values);
    paintWeights(picture, shown.values, m, n, scale);
    picture.setAttribute(
      "aria-label",
      `Weights as a matrix of ${n} rows, one per output, and ${m} columns, one per input`,
    );
    caption.textContent = `${n} rows, one per output; ${m} columns, one per input.`;
    legend.draw();
    legend.set(scale);
    twin.refresh();
  }

  const root = card("Weights of a layer", { class: "matrix-card", tools: chooser }, caption, picture, twin);
  return { root, build, update, draw };
}
