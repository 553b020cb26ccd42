// The page of handgrad lab: builds the views and keeps the visible one up to date.
import "uplot/dist/uPlot.min.css";
import "../style.css";
import { ApiError, getJson } from "./api.js";
import { codeView } from "./code.js";
import { presetCards } from "./compare.js";
import { curveCard } from "./curves.js";
import { card, h, show, svg, throttle, toast } from "./dom.js";
import { answerCard, drawCard } from "./draw.js";
import { number, percent, tick } from "./format.js";
import { gradientCard, gradientLines, unitsCard } from "./gradients.js";
import * as link from "./link.js";
import { layerFigures, mistakesView } from "./mistakes.js";
import { boundaryCard, openPlane, planeChooser } from "./plane.js";
import { RUNS } from "./colors.js";
import { settingsPanel } from "./settings.js";
import { create, dataset, emit, isImage, on, resume, runs, setEpoch, setView, store } from "./store.js";
import { listen, showKeys, toggleTeaching } from "./teaching.js";
import { applyTheme, themeButton, toggleTheme } from "./theme.js";
import { actions, transport } from "./transport.js";
import { walkthroughView } from "./walkthrough.js";
import { firstWeightsCard, matrixCard } from "./weights.js";

const VIEWS = [
  ["train", "Train"],
  ["inside", "Inside"],
  ["mistakes", "Mistakes"],
  ["compare", "Compare"],
  ["plane", "2-D"],
  ["steps", "Step through"],
  ["code", "Code"],
];

const validationAccuracy = { name: "validation", of: (point) => point.validation_accuracy };
const trainingAccuracy = { name: "training", of: (point) => point.accuracy, dash: 1, width: 1.5, shade: true };
const validationLoss = { name: "validation", of: (point) => point.validation_loss };
const trainingLoss = { name: "training", of: (point) => point.loss, dash: 1, width: 1.5, shade: true };

const pickEpoch = (epoch) => {
  setEpoch(epoch);
  if (isImage()) openView("mistakes"); // the boundary of points is on the same view as the curve
};

const accuracyCurve = (options = {}) =>
  curveCard("Accuracy", {
    lines: () => [validationAccuracy, trainingAccuracy],
    text: (value) => percent(value, 1),
    ticks: (value) => (value === null ? "" : `${tick(100 * value)} %`),
    canLog: false,
    max: 1,
    pick: pickEpoch,
    ...options,
  });
const lossCurve = (options = {}) =>
  curveCard("Loss", {
    lines: () => [validationLoss, trainingLoss],
    text: (value) => number(value),
    min: 0,
    log: true,
    pick: pickEpoch,
    ...options,
  });
const gradientCurve = () =>
  curveCard("Gradient norms over time", {
    lines: gradientLines,
    text: (value) => number(value, 2),
    log: true,
    className: "wide",
  });

function build() {
  const main = document.getElementById("views");
  const answer = answerCard();
  const draw = drawCard(answer.flip);
  const train = {
    curves: [accuracyCurve(), lossCurve()],
    weights: [firstWeightsCard(0), firstWeightsCard(1)],
    boundaries: [boundaryCard(0), boundaryCard(1)],
  };
  const inside = { gradients: gradientCard(), units: unitsCard(), curve: gradientCurve(), matrix: matrixCard() };
  const compare = {
    curves: [accuracyCurve(), lossCurve()],
    gradients: gradientCard(),
    units: unitsCard(),
    curve: gradientCurve(),
  };
  const plane = {
    chooser: planeChooser(),
    boundaries: [boundaryCard(0), boundaryCard(1)],
    curves: [accuracyCurve(), lossCurve()],
  };
  const planeCurves = h(
    "div",
    { class: "curves" },
    plane.curves.map((each) => each.root),
  );
  const mistakes = mistakesView();
  const steps = walkthroughView();
  const code = codeView();

  const hidden = h("div", { class: "layers" });
  const hiddenCard = card(
    "Activations for your drawing",
    {
      class: "hidden-card",
      help: "The outputs of each layer for the image on the pad, one square per unit: from black, 0, to white; blue and orange if some outputs are negative.",
    },
    hidden,
  );
  const drawHidden = () => {
    hiddenCard.hidden = !isImage();
    if (!store.predictions.length)
      show(hidden, h("p", { class: "empty" }, "Draw a digit in the view Train, or press X for an example."));
    else
      show(
        hidden,
        store.predictions.map((prediction, i) =>
          h(
            "div",
            { class: "layer-row" },
            store.predictions.length > 1 && h("h3", { class: RUNS[i].className }, `Run ${RUNS[i].letter}`),
            layerFigures(prediction.layers),
          ),
        ),
      );
  };

  const imagesOnly = h("div", { class: "digits" }, draw.root, answer.root);
  const pointsOnly = h(
    "div",
    { class: "boundaries" },
    train.boundaries.map((each) => each.root),
  );
  const panels = {
    train: h(
      "div",
      { class: "view train-view" },
      imagesOnly,
      pointsOnly,
      h(
        "div",
        { class: "curves" },
        train.curves.map((each) => each.root),
      ),
      h(
        "div",
        { class: "weights" },
        train.weights.map((each) => each.root),
      ),
    ),
    inside: h(
      "div",
      { class: "view inside-view" },
      inside.gradients.root,
      inside.units.root,
      inside.curve.root,
      hiddenCard,
      inside.matrix.root,
    ),
    mistakes: mistakes.root,
    compare: h(
      "div",
      { class: "view compare-view" },
      presetCards().root,
      h(
        "div",
        { class: "curves" },
        compare.curves.map((each) => each.root),
      ),
      compare.gradients.root,
      compare.units.root,
      compare.curve.root,
    ),
    plane: h(
      "div",
      { class: "view plane-view" },
      plane.chooser.root,
      h(
        "div",
        { class: "boundaries" },
        plane.boundaries.map((each) => each.root),
      ),
      planeCurves,
    ),
    steps: steps.root,
    code: code.root,
  };
  const controls = transport();
  show(document.getElementById("transport"), controls.root, controls.notes);
  show(document.getElementById("settings"), settingsPanel().root);

  // ---- Tabs ----------------------------------------------------------------------------------------------------------

  const tabs = VIEWS.map(([name, text]) =>
    h(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${name}`,
        "aria-controls": `view-${name}`,
        onclick: (event) => {
          openView(name);
          if (event.detail) panels[name].focus({ preventScroll: true }); // a click: the arrow keys belong to the view
        },
      },
      text,
    ),
  );
  show(document.getElementById("tabs"), tabs);
  document.getElementById("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const index = VIEWS.findIndex(([name]) => name === store.view);
    const next = (index + step + VIEWS.length) % VIEWS.length;
    openView(VIEWS[next][0]);
    tabs[next].focus();
  });
  for (const [name] of VIEWS) {
    Object.assign(panels[name], { id: `view-${name}`, tabIndex: -1 });
    panels[name].setAttribute("role", "tabpanel");
    panels[name].setAttribute("aria-labelledby", `tab-${name}`);
  }
  show(main, Object.values(panels));
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the part of the address after # has the settings
    panels[store.view].focus();
  });

  // ---- Updates: only what is visible ---------------------------------------------------------------------------------

  const updates = {
    train() {
      train.curves.forEach((each) => each.update());
      train.weights.forEach((each) => each.update());
      train.boundaries.forEach((each) => each.update());
    },
    inside() {
      inside.gradients.update();
      inside.units.update();
      inside.curve.update();
      inside.matrix.update();
      drawHidden();
    },
    mistakes: () => mistakes.update(),
    compare() {
      compare.curves.forEach((each) => each.update());
      compare.gradients.update();
      compare.units.update();
      compare.curve.update();
    },
    plane() {
      plane.curves.forEach((each) => each.update());
      plane.boundaries.forEach((each) => each.update());
    },
    steps() {},
    code: () => code.update(),
  };
  const update = () => store.experiment && updates[store.view]();
  const often = throttle(() => ["train", "inside", "compare", "plane"].includes(store.view) && update(), 150);
  const seldom = throttle(
    () => ((store.view === "mistakes" && mistakes.wantsPoints()) || store.view === "code") && update(),
    () => (store.view === "mistakes" ? mistakes.interval() : 1000),
  );

  function showView() {
    const { view } = store;
    document.documentElement.dataset.view = view;
    VIEWS.forEach(([name], i) => {
      panels[name].hidden = name !== view;
      tabs[i].setAttribute("aria-selected", String(name === view));
      tabs[i].tabIndex = name === view ? 0 : -1;
    });
    tabs.find((tab) => tab.id === `tab-${view}`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
    const untouched = store.experiment?.status === "ready"; // a trained network is only replaced by a click
    if (view === "plane" && dataset()?.image && untouched) openPlane("spirals");
    if (view === "steps") steps.load();
    update();
  }

  on("view", showView);
  on("points", () => {
    often();
    seldom();
  });
  on("epoch", seldom);
  on("status", () => {
    often();
    seldom();
  });
  on("selection", update);
  on("prediction", () => {
    if (store.view === "train") train.weights.forEach((each) => each.drawActivations());
    if (store.view === "inside") drawHidden();
  });
  on("experiment", () => {
    document.documentElement.dataset.input = isImage() ? "image" : "plane";
    document.documentElement.dataset.runs = runs().length;
    imagesOnly.hidden = !isImage();
    pointsOnly.hidden = isImage();
    planeCurves.hidden = isImage();
    train.weights.forEach((each) => each.reset());
    inside.matrix.build();
    update();
  });
  on("reset", () => {
    [...train.curves, ...compare.curves, ...plane.curves, inside.curve, compare.curve].forEach((each) =>
      each.rebuild(),
    );
    update();
  });
  on("theme", () => {
    [...train.curves, ...compare.curves, ...plane.curves, inside.curve, compare.curve].forEach((each) => each.redraw());
    train.weights.forEach((each) => each.draw());
    inside.matrix.draw();
    [...train.boundaries, ...plane.boundaries].forEach((each) => each.draw());
    if (store.view === "mistakes") mistakes.redraw();
    if (store.view === "steps") steps.redraw();
    if (store.view === "inside") drawHidden();
  });

  // ---- Keys ----------------------------------------------------------------------------------------------------------

  const click = (id) => () => {
    const button = document.getElementById(id);
    if (button && !button.disabled) button.click();
  };
  listen({
    " ": click("start"),
    s: click("step"),
    e: click("epoch"),
    r: click("reset"),
    "[": () => actions.slower(),
    "]": () => actions.faster(),
    c: draw.clear,
    u: draw.undo,
    x: () => isImage() && draw.example(),
    f: click("flip"),
    d: toggleTheme,
    t: toggleTeaching,
    "?": showKeys,
    ArrowLeft: () => store.view === "steps" && steps.back(),
    ArrowRight: () => store.view === "steps" && steps.next(),
    ...Object.fromEntries(VIEWS.map(([name], i) => [String(i + 1), () => openView(name)])),
  });
  show(
    document.getElementById("page-tools"),
    h(
      "button",
      {
        type: "button",
        class: "icon",
        id: "teach",
        "aria-pressed": "false",
        title: "Teaching mode: large fonts, full screen (T)",
        "aria-label": "Teaching mode",
        onclick: toggleTeaching,
      },
      svg(
        "svg",
        { viewBox: "0 0 16 16", class: "glyph", "aria-hidden": "true" },
        svg("path", { d: "M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4" }),
      ),
    ),
    themeButton(),
    h(
      "button",
      { type: "button", class: "icon", id: "show-keys", title: "Keys (?)", "aria-label": "Keys", onclick: showKeys },
      "?",
    ),
  );
}

function openView(name) {
  if (VIEWS.some(([each]) => each === name) && name !== store.view) setView(name);
}

// ---- Start -------------------------------------------------------------------------------------------------------------

/** The runs that the address asks for, or the default. */
function wanted(found) {
  const { options } = store;
  const preset = options.presets.find((each) => each.name === found.preset);
  if (preset) return { settings: preset.runs, preset: preset.name };
  if (found.runs.length) return { settings: found.runs, preset: null };
  if (found.preset)
    toast(`The link asks for "${found.preset}", which does not exist. The page shows the default settings.`, "error");
  const settings = { ...options.defaults, initializer: "xavier_normal" }; // the images of the weights start pale
  if (settings.data === "mnist") settings.n_train = 50000; // half a minute of training
  return { settings: [settings], preset: null };
}

/** Whether a preset has one run: it is a network in the plane, with nothing to compare. */
const isSingle = (name) => store.options.presets.find((each) => each.name === name)?.runs.length === 1;

async function open(hash, fresh) {
  const found = link.decode(hash, store.options.defaults);
  if (VIEWS.some(([name]) => name === found.view)) store.view = found.view;
  else if (found.preset) store.view = isSingle(found.preset) ? "plane" : "compare";
  const { settings, preset } = wanted(found);
  if (!(fresh && (await resume(found.runs.length || preset ? settings : null)))) {
    try {
      await create(settings, { preset });
    } catch (error) {
      if (error.status !== 400 && error.status !== 404) throw error;
      toast(`${error.message}. The page shows the default settings.`, "error");
      await create(wanted({ runs: [] }).settings);
    }
  } else store.preset = preset;
  emit("view");
}

/** A link was opened in this page: another view, or other runs. */
async function follow(hash) {
  const found = link.decode(hash, store.options.defaults);
  const { settings } = wanted(found);
  const text = (list) => link.encode({ runs: list });
  const same = !(found.preset || found.runs.length) || text(settings) === text(runs().map((run) => run.settings));
  if (!same) await open(hash, false);
  else if (found.view) openView(found.view);
}

async function start() {
  applyTheme();
  try {
    store.options = await getJson("/api/options");
    build();
    await open(location.hash, true);
    addEventListener("hashchange", () => follow(location.hash).catch((error) => toast(error.message, "error")));
    document.documentElement.dataset.ready = "";
  } catch (error) {
    show(
      document.getElementById("views"),
      h("p", { class: "empty", role: "alert" }, error.message),
      h("button", { type: "button", onclick: () => location.reload() }, "Try again"),
    );
    // The run of a closed tab is released after some seconds.
    if (error.status === 409) setTimeout(() => location.reload(), 5000);
    if (!(error instanceof ApiError)) throw error;
  }
}

start();
