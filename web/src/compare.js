// Two runs that differ in one setting: the same seed, the same batches.
import { card, h, show } from "./dom.js";
import { RUNS } from "./colors.js";
import { differences, startRuns, toText } from "./settings.js";
import { command, on, runs, store } from "./store.js";

const NAMES = {
  loss: "loss",
  initializer: "initialization",
  activation: "activation",
  lr: "learning rate",
  optimizer: "optimizer",
  batch_size: "batch size",
  hidden: "hidden layers",
  l2: "L2 penalty",
  dropout: "dropout",
};

export function presetCards() {
  const list = h("div", { class: "presets" });
  const text = h("p", { class: "lead" });

  function build() {
    show(
      list,
      store.options.presets
        .filter((preset) => preset.runs.length > 1)
        .map((preset) => {
          const pair = preset.runs;
          const active = preset.name === store.preset;
          const names = differences(pair);
          return h(
            "button",
            {
              type: "button",
              class: "preset",
              "aria-pressed": String(active),
              id: `preset-${preset.name}`,
              "data-preset": preset.name,
              onclick: () => open(preset),
            },
            h("strong", {}, preset.title),
            h(
              "span",
              { class: "versus" },
              pair.map((settings, r) =>
                h(
                  "span",
                  { class: RUNS[r].className },
                  h("b", {}, RUNS[r].letter),
                  " ",
                  names.slice(0, 1).map((name) => toText(name, settings[name])),
                ),
              ),
            ),
          );
        }),
    );
    const preset = store.options.presets.find((each) => each.name === store.preset && each.runs.length > 1);
    text.textContent = preset
      ? preset.text
      : "Choose a comparison. Both runs start from the same seed and see the same mini-batches, so that the setting in which they differ is the only cause of a difference.";
    difference.textContent =
      runs().length > 1
        ? differences()
            .map(
              (name) =>
                `${NAMES[name] ?? name}: A ${toText(name, runs()[0].settings[name])}, B ${toText(name, runs()[1].settings[name])}`,
            )
            .join(" · ") || "The two runs are equal. Change a setting of one of them."
        : "";
  }

  const difference = h("p", { class: "difference" });

  async function open(preset) {
    await startRuns(preset.runs, preset.name);
    command("start");
  }

  on("experiment", build);
  const root = card("Compare two runs", { class: "presets-card" }, list, text, difference);
  return { root };
}
