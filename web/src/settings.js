// The settings of the runs, in a row per run. A change sets up the runs again, untrained.
import { field, h, select, show, toast } from "./dom.js";
import { RUNS } from "./colors.js";
import { title } from "./format.js";
import { create, isImage, on, runs, store } from "./store.js";

const HELP = {
  data: "What the network learns. MNIST: 28 × 28 images of handwritten digits. Synthetic: digits that this package draws.",
  hidden: "Widths of the hidden layers, separated by commas. Empty: no hidden layer.",
  activation: "The function that each hidden unit applies to its weighted input.",
  loss: "What the training minimizes.",
  initializer: "The distribution of the initial weights.",
  optimizer: "How the gradient changes the weights.",
  batch_size: "Examples per training step.",
  lr: "The length of a step along the negative gradient. It can also be changed while the network trains.",
  n_train: "Number of training examples. Fewer examples: faster epochs, more overfitting.",
  l2: "Penalty on large weights: l2/2 times the sum of their squares.",
  dropout: "Share of the hidden units that are set to 0 at random in each training step.",
  epochs: "The training stops after this number of epochs.",
  seed: "Start of the random generators. The same seed gives the same weights and the same order of the examples.",
};
const NAMES = {
  data: "Data",
  hidden: "Hidden layers",
  activation: "Activation",
  loss: "Loss",
  initializer: "Initialization",
  optimizer: "Optimizer",
  batch_size: "Batch size",
  lr: "Learning rate",
  n_train: "Training examples",
  l2: "L2 penalty",
  dropout: "Dropout",
  epochs: "Epochs",
  seed: "Seed",
};
const MAIN = ["data", "hidden", "activation", "loss", "initializer", "optimizer", "batch_size"];
const MORE = ["n_train", "l2", "dropout", "epochs", "seed"];
const IN_RECIPES = ["hidden", "lr", "batch_size", "epochs", "seed", "data", "n_train"]; // a recipe leaves these to the page
const SHARED = ["data", "n_train", "batch_size", "epochs", "seed"]; // equal in both runs, so that they see the same batches

/** A sentence for a run: "784-30-10 · sigmoid · cross-entropy · SGD". With HOG: "784-HOG 392-30-10". */
export function describe(run) {
  const { hidden, activation, loss, optimizer, data, batch_size } = run.settings;
  const sizes = run.layers
    .filter((layer) => layer.n_parameters)
    .map((layer) => layer.name.match(/(\d+)-(\d+)/))
    .filter(Boolean);
  const hog = run.layers.find((layer) => layer.kind === "hog")?.name.replace(/HOG (\d+)-/, "$1-HOG ");
  const first = hog ?? sizes[0]?.[1];
  const shape = sizes.length ? [first, ...sizes.map((size) => size[2])].join("-") : hidden.join("-");
  return [
    dataTitle(data),
    shape,
    title(activation),
    title(loss),
    title(initializerOf(run.settings)),
    `${title(optimizer)}, batches of ${batch_size}`,
  ].join(" · ");
}

const initializerOf = (settings) =>
  settings.initializer ?? store.options.default_initializers[settings.activation] ?? "default";

const dataTitle = (name) => store.options.datasets.find((data) => data.name === name)?.title ?? name;

export const toText = (name, value) =>
  name === "data"
    ? dataTitle(value)
    : Array.isArray(value)
      ? value.join(", ") || "none"
      : typeof value === "string"
        ? title(value)
        : String(value);

/** "100, 30" as [100, 30]; null if a part is not an integer of at least 1. */
function parseWidths(text) {
  const parts = text.trim() === "" ? [] : text.trim().split(/\s*[,;x×-]\s*|\s+/);
  const widths = parts.map((part) => (/^[0-9]+$/.test(part) ? Number(part) : 0));
  return widths.every((width) => width >= 1) ? widths : null;
}

/** The names of the settings in which the two runs differ. */
export function differences(pair = runs().map((run) => run.settings)) {
  if (pair.length < 2) return [];
  return Object.keys(pair[0]).filter((name) => JSON.stringify(pair[0][name]) !== JSON.stringify(pair[1][name]));
}

let queue = Promise.resolve();

/** Change a setting of a run, and set up the runs again. Quick changes are made one after the other. */
export function change(r, name, value) {
  queue = queue.then(() => changeNow(r, name, value));
  return queue;
}

async function changeNow(r, name, value) {
  const settings = runs().map((run) => ({ ...run.settings }));
  const targets = SHARED.includes(name) ? settings : [settings[r]];
  for (const target of targets) {
    target[name] = value;
    if (!IN_RECIPES.includes(name)) target.recipe = null;
    if (name === "data") Object.assign(target, forData(value, target));
  }
  await start(settings);
}

/** Settings that suit other data: the network of a plane is small, and its data sets have few examples. */
function forData(name, settings) {
  const { datasets, defaults, presets } = store.options;
  const [before, after] = [runs()[0]?.settings.data, name].map((key) => datasets.find((data) => data.name === key));
  if (before.image && after.image) return { n_train: Math.min(settings.n_train, after.n_train, 10000) };
  if (!before.image && !after.image) return {};
  const preset = presets.find((each) => each.runs[0].data === name) ?? presets.find((each) => each.runs.length === 1);
  return { ...(after.image ? defaults : preset.runs[0]), data: name, seed: settings.seed };
}

async function start(settings, preset = null) {
  try {
    await create(settings, { preset });
  } catch (error) {
    toast(error.message, "error");
    build?.(); // show the values that are in use
  }
}

export const startRuns = start;

/** Move the focus from a button that was pressed with a key, and does not exist any more. */
function focusAfterKey(event, id) {
  if (!event.detail) document.getElementById(id)?.focus();
}

let build = null;

export function settingsPanel() {
  const rows = h("div", { class: "settings-rows" });
  const summary = h("div", { class: "settings-summary" });
  let expanded = false;
  let open = false; // in teaching mode, the settings are a line of text until they are opened
  const root = h("section", { class: "settings", "aria-label": "Settings" }, summary, rows);

  function control(r, name) {
    const { options } = store;
    const settings = runs()[r].settings;
    const value = name === "initializer" ? initializerOf(settings) : settings[name];
    const set = (next) => change(r, name, next);
    const key = `${name}-${r}`;
    const pairs = (names) => names.map((each) => [each.name ?? each, each.title ?? title(each)]);
    if (name === "data")
      return select(
        options.datasets.map((data) => [data.name, data.available ? data.title : data.reason, !data.available]),
        value,
        set,
        { id: key },
      );
    const lists = {
      activation: options.activations,
      loss: options.losses,
      initializer: options.initializers,
      optimizer: options.optimizers,
    };
    if (name in lists) {
      const list = pairs(lists[name]);
      if (!list.some(([each]) => each === value)) list.push([value, title(value ?? "default")]);
      return select(list, value, set, { id: key });
    }
    if (name === "hidden") {
      const input = h("input", {
        type: "text",
        id: key,
        value: value.join(", "),
        inputmode: "numeric",
        autocomplete: "off",
        spellcheck: "false",
        onchange: () => {
          const sizes = parseWidths(input.value);
          if (sizes) set(sizes);
          else {
            toast(`"${input.value}": expected the widths as integers of at least 1, for example 100, 30.`, "error");
            input.value = value.join(", ");
          }
        },
      });
      return input;
    }
    const input = h("input", {
      type: "number",
      id: key,
      value: value ?? "",
      min: 0,
      step: "any",
      onchange: () => {
        if (input.value !== "" && Number.isFinite(Number(input.value))) set(Number(input.value));
        else input.value = value ?? "";
      },
    });
    return input;
  }

  build = () => {
    if (!runs().length) return;
    const different = differences();
    const recipes = (store.options.recipes ?? []).filter(
      ({ settings }) =>
        !settings?.data || store.options.datasets.find((data) => data.name === settings.data)?.available,
    );
    const tools = h(
      "div",
      { class: "settings-tools" },
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          id: "more-settings",
          "aria-expanded": String(expanded),
          onclick: () => {
            expanded = !expanded;
            build();
          },
        },
        expanded ? "Fewer" : "More…",
      ),
      runs().length < 2 &&
        h(
          "button",
          {
            type: "button",
            class: "quiet",
            id: "add-run",
            title: "A second run with the same seed and batches: change one of its settings and compare",
            onclick: (event) =>
              start([runs()[0].settings, { ...runs()[0].settings }]).then(() => focusAfterKey(event, "hidden-1")),
          },
          "+ Second run",
        ),
      recipes.length > 0 &&
        isImage() &&
        select(
          [["", "No recipe"], ...recipes.map((recipe) => [recipe.name, recipe.title ?? recipe.name])],
          runs()[0].settings.recipe ?? "",
          (name) => {
            const recipe = recipes.find((each) => each.name === name);
            start([
              recipe ? { ...recipe.settings, data: runs()[0].settings.data } : { ...runs()[0].settings, recipe: null },
            ]);
          },
          {
            "aria-label": "Use the settings of a recipe",
            title: "Use the settings of a recipe",
            class: "quiet",
            id: "recipe",
          },
        ),
    );
    show(
      rows,
      runs().map((run, r) =>
        h(
          "div",
          {
            class: `settings-row ${RUNS[r].className} ${expanded ? "expanded" : ""}`,
            role: "group",
            "aria-label": runs().length > 1 ? `Settings of run ${RUNS[r].letter}` : "Settings of the run",
          },
          runs().length > 1 && h("span", { class: `letter ${RUNS[r].className}` }, RUNS[r].letter),
          [...MAIN, ...(expanded ? MORE : [])].map((name) => {
            const element = field(NAMES[name], control(r, name), expanded && HELP[name]);
            element.classList.toggle("different", different.includes(name));
            element.classList.add(`field-${name}`);
            element.title = HELP[name];
            return element;
          }),
          r === 0 && tools,
          runs().length > 1 &&
            h(
              "button",
              {
                type: "button",
                class: "icon",
                "aria-label": `Remove run ${RUNS[r].letter}`,
                title: "Remove this run",
                onclick: (event) =>
                  start(
                    runs()
                      .filter((each) => each !== run)
                      .map((each) => each.settings),
                  ).then(() => focusAfterKey(event, "add-run")),
              },
              "×",
            ),
        ),
      ),
    );
    show(
      summary,
      runs().map((run, r) =>
        h("p", { class: RUNS[r].className }, runs().length > 1 && h("b", {}, `${RUNS[r].letter} `), describe(run)),
      ),
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          id: "open-settings",
          "aria-expanded": String(open),
          onclick: () => {
            open = !open;
            build();
          },
        },
        open ? "Hide the settings" : "Change the settings",
      ),
    );
    root.classList.toggle("open", open);
  };
  on("experiment", build);
  return { root };
}
