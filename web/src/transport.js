// The controls of the training: start, pause, one mini-batch, one epoch, reset, and the learning rate while it runs.
import { disable, h, select, show } from "./dom.js";
import { RUNS } from "./colors.js";
import { count, number, percent, rate } from "./format.js";
import { change } from "./settings.js";
import { command, isRunning, last, on, runs, setEpoch, store } from "./store.js";

const ENDED = ["finished", "diverged", "failed"];

// Slow motion, to watch how the network changes: steps per second.
const SPEEDS = [
  ["", "full speed"],
  ["500", "500 steps/s"],
  ["100", "100 steps/s"],
  ["10", "10 steps/s"],
  ["2", "2 steps/s"],
];
let speed = "";

const sendSpeed = () => command("speed", { value: speed === "" ? null : Number(speed) });

export const actions = {
  async toggle() {
    if (ended()) await command("reset");
    await command(isRunning() ? "pause" : "start");
  },
  step: () => command("step"),
  epoch: () => command("epoch"),
  reset: () => command("reset"),
};

const ended = () => ENDED.includes(store.experiment?.status);

const MIN = -4; // of the logarithm of the rate
const MAX = 2;

export function transport() {
  const start = h("button", {
    type: "button",
    class: "primary",
    id: "start",
    onclick: actions.toggle,
    title: "Start or pause (Space)",
  });
  const step = h(
    "button",
    { type: "button", id: "step", onclick: actions.step, title: "Train on one mini-batch (S)" },
    "Step",
  );
  const epoch = h(
    "button",
    { type: "button", id: "epoch", onclick: actions.epoch, title: "Train for one epoch (E)" },
    "Epoch",
  );
  const reset = h(
    "button",
    { type: "button", id: "reset", onclick: actions.reset, title: "Back to the initial weights (R)" },
    "Reset",
  );
  const speeds = select(
    SPEEDS,
    speed,
    (value) => {
      speed = value;
      sendSpeed();
    },
    { id: "speed", "aria-label": "Speed", title: "Slow motion, to watch how the network changes" },
  );
  const rates = h("div", { class: "rates" });
  const facts = h("dl", { class: "facts" });
  const message = h("p", { class: "message", role: "status", hidden: true });
  const epochText = h("span", {});
  const past = h(
    "p",
    { class: "message", role: "status", hidden: true, id: "past" },
    epochText,
    h("button", { type: "button", class: "quiet", id: "now", onclick: () => setEpoch(null) }, "Show the current weights"),
  );
  let sliders = [];

  function buildRates() {
    sliders = runs().map((run, r) => {
      const value = run.lr;
      const name = runs().length > 1 ? `Rate ${RUNS[r].letter}` : "Learning rate";
      const slider = h("input", {
        type: "range",
        min: MIN,
        max: MAX,
        step: 0.02,
        value: Math.log10(value),
        "aria-label": `${name}, logarithmic`,
        id: `rate-slider-${r}`,
      });
      const box = h("input", {
        type: "number",
        min: 0,
        step: "any",
        value: rate(value),
        "aria-label": name,
        id: `rate-${r}`,
        class: "short",
      });
      let timer;
      const send = (lr) => {
        clearTimeout(timer);
        timer = setTimeout(async () => {
          if (await command("lr", { value: lr, run: run.id })) run.lr = lr;
          else showRate();
        }, 120);
      };
      /** The rate of the run, after another one was rejected. */
      const showRate = () => {
        slider.value = Math.log10(run.lr);
        box.value = rate(run.lr);
      };
      const set = (lr) => change(r, "lr", lr).then(showRate); // if it is accepted, there are new controls
      const untrained = () => !(last(run)?.step > 0) && !isRunning();
      slider.addEventListener("input", () => {
        const lr = Number((10 ** Number(slider.value)).toPrecision(2));
        box.value = rate(lr);
        if (!untrained()) send(lr);
      });
      // Before the training, the rate is a setting like the others.
      slider.addEventListener("change", () => {
        if (untrained()) set(Number(box.value));
      });
      box.addEventListener("change", () => {
        const lr = Number(box.value);
        if (!(lr > 0)) {
          showRate();
          return;
        }
        slider.value = Math.log10(lr);
        if (untrained()) set(lr);
        else send(lr);
      });
      return {
        slider,
        box,
        root: h(
          "div",
          { class: `rate ${RUNS[r].className}` },
          h("label", { for: `rate-slider-${r}` }, name),
          slider,
          box,
        ),
      };
    });
    show(
      rates,
      sliders.map((each) => each.root),
    );
  }

  function update() {
    const { experiment } = store;
    if (!experiment) return;
    const running = isRunning();
    const untouched = runs().every((run) => !(last(run)?.step > 0));
    start.textContent = running ? "Pause" : ended() ? "Start again" : untouched ? "Start training" : "Continue";
    start.dataset.state = running ? "running" : "idle";
    for (const button of [step, epoch]) disable(button, running || ended());
    const failed = ["diverged", "failed"].includes(experiment.status);
    const one = runs().findIndex((run) => ["diverged", "failed"].includes(run.status));
    const ofRun = one >= 0 && runs().length > 1 ? `Run ${RUNS[one].letter}: ${runs()[one].message}` : "";
    const text = ofRun || (failed ? experiment.message || "The training diverged" : "");
    message.hidden = !text;
    message.textContent = text && `${text[0].toUpperCase()}${text.slice(1)}.`.replace("..", ".");
    message.dataset.kind = "error";
    document.documentElement.dataset.status = experiment.status;
    updateFacts();
  }

  function updateFacts() {
    const points = runs().map(last);
    const first = points.reduce((a, b) => (b?.step > (a?.step ?? 0) ? b : a)); // the other run may have ended
    const validation = runs().map(
      (run) =>
        run.points.findLast((point) => point.validation_accuracy !== null && point.validation_accuracy !== undefined)
          ?.validation_accuracy,
    );
    const several = runs().length > 1;
    show(
      facts,
      fact("Epoch", first ? first.epoch.toFixed(2) : "0", `of ${runs()[0]?.settings.epochs ?? ""}`),
      fact("Steps", first ? count(first.step) : "0"),
      fact(
        "Validation accuracy",
        validation.map((value, r) => h("span", { class: several ? RUNS[r].className : "" }, percent(value))),
      ),
      fact("Examples/s", first?.examples_per_second ? count(first.examples_per_second) : number(null)),
    );
  }

  const fact = (name, value, extra) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, value, extra && h("small", {}, ` ${extra}`)));

  on("experiment", () => {
    if (store.experiment.speed)
      speed = speeds.value = String(store.experiment.speed); // a reloaded page
    else if (speed !== "") sendSpeed();
    buildRates();
    update();
  });
  on("status", update);
  for (const name of ["experiment", "selection", "reset"])
    on(name, () => {
      past.hidden = store.epoch === null;
      epochText.textContent = past.hidden
        ? ""
        : `Weights, boundary, answers and mistakes are those after epoch ${store.epoch}.`;
    });
  on("points", updateFacts);
  on("reset", () => {
    if (speed !== "") sendSpeed();
    buildRates();
    update();
  });
  const nudge = (factor) => {
    for (const { slider } of sliders) {
      slider.value = Number(slider.value) + factor;
      slider.dispatchEvent(new Event("input"));
      slider.dispatchEvent(new Event("change"));
    }
  };
  actions.faster = () => nudge(0.1);
  actions.slower = () => nudge(-0.1);

  const root = h(
    "div",
    { class: "transport", role: "group", "aria-label": "Training" },
    h("div", { class: "buttons" }, start, step, epoch, reset),
    speeds,
    rates,
    facts,
  );
  return { root, notes: [message, past] };
}
