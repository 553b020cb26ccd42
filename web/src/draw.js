// The card with the pad, and the card with what the network sees and answers.
import { bytes, isAbandoned } from "./api.js";
import { announce, card, disable, h, numbers, show, toast } from "./dom.js";
import { cssColor, RUNS } from "./colors.js";
import { fixed, percent } from "./format.js";
import { imageInput } from "./image-input.js";
import { createPad } from "./pad.js";
import { canvas, paint, paintImage } from "./pixels.js";
import { diverging } from "./colors.js";
import { example, flip } from "./prediction.js";
import { last, on, runs, setDrawing, store } from "./store.js";

export function drawCard(flip) {
  const pad = createPad(setDrawing);
  const label = h("p", { class: "note", "aria-live": "polite" });

  function receive(element, drawing) {
    pad.show(element, drawing.width, drawing.height);
    setDrawing(drawing);
  }

  async function showExample() {
    try {
      const { pixels, drawing } = await example();
      const { width, height } = drawing;
      const image = h("canvas");
      const ink = cssColor("--ink");
      paint(image, pixels, width, height, () => [0, 0, 0]);
      // The ink of the page on a transparent background, so that examples look like drawings.
      const context = image.getContext("2d");
      const data = context.getImageData(0, 0, width, height);
      const [r, g, b] = hexToRgb(ink);
      pixels.forEach((value, i) => data.data.set([r, g, b, value], 4 * i));
      context.putImageData(data, 0, 0);
      receive(image, drawing);
    } catch (error) {
      toast(error.message, "error");
    }
  }

  on("theme", () => pad.redraw());
  on("drawing", () => {
    const { drawing } = store;
    label.textContent =
      drawing?.source === "example"
        ? `A validation image. Its label is ${drawing.label}.`
        : drawing?.source === "image"
          ? "Your image."
          : "";
  });

  const buttons = h(
    "div",
    { class: "buttons" },
    h("button", { type: "button", id: "clear", onclick: pad.clear, title: "Clear the pad (C)" }, "Clear"),
    h("button", { type: "button", id: "undo", onclick: pad.undo, title: "Remove the last stroke (U)" }, "Undo"),
    h(
      "button",
      { type: "button", id: "example", onclick: showExample, title: "An image that the network is not trained on (X)" },
      "Example",
    ),
    imageInput(receive),
  );
  const root = card(
    "Draw",
    { class: "draw-card" },
    pad.root,
    buttons,
    flip,
    label,
    h(
      "details",
      { class: "numbers" },
      h("summary", {}, "How the drawing is read"),
      h(
        "p",
        { class: "help" },
        "The drawing is cropped, scaled to 20 × 20 pixels, centred and smoothed, as the images of MNIST were. The result is the input of the network. It is the same Python code that handgrad predict uses.",
      ),
    ),
  );
  return { root, clear: pad.clear, undo: pad.undo, example: showExample };
}

const hexToRgb = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));

export function answerCard() {
  const seen = canvas("What the network sees", "seen");
  const size = h("figcaption", {});
  const answers = h("div", { class: "answers" });
  const bars = h("div", { class: "bars", role: "img", "aria-label": "Probabilities of the classes" });
  const reason = h("p", { class: "reason", role: "status" });
  const flipButton = h(
    "button",
    {
      type: "button",
      id: "flip",
      title: "The smallest change of the image that flips the answer (F)",
      onclick: showFlip,
      disabled: true,
    },
    "Smallest change that flips it",
  );
  const flipped = h("div", { class: "flip" });
  const twin = numbers(() => {
    if (!store.predictions.length) return null;
    return [
      "Probabilities in percent",
      ["Class", ...runs().map((_, i) => (runs().length > 1 ? `Run ${RUNS[i].letter}` : "Probability"))],
      classes().map((name, k) => [name, ...store.predictions.map((p) => fixed(100 * p.probabilities[k], 2))]),
    ];
  });
  const classes = () => runs()[0]?.classes ?? [];
  let rows = [];

  function build() {
    rows = classes().map((name, k) => {
      const fills = runs().map((_, i) => h("i", { class: RUNS[i].className }));
      const value = h("span", { class: "value" });
      return {
        k,
        fills,
        value,
        root: h(
          "div",
          { class: "bar" },
          h("b", {}, name),
          h(
            "div",
            { class: "tracks" },
            fills.map((fill) => h("span", { class: "track" }, fill)),
          ),
          value,
        ),
      };
    });
    show(
      bars,
      rows.map((row) => row.root),
    );
    bars.style.setProperty("--name", `${Math.max(1.6, ...classes().map((name) => name.length))}ch`);
    const [height, width] = runs()[0]?.image ?? [28, 28];
    size.textContent = `${width} × ${height} pixels`;
    seen.setAttribute("aria-label", `What the network sees: an image of ${width} by ${height} pixels`);
    update();
  }

  let said = "";
  function update() {
    const { predictions, drawing } = store;
    disable(flipButton, !predictions.length);
    if (!drawing) show(flipped);
    for (const { k, fills, value, root } of rows) {
      fills.forEach((fill, i) => fill.style.setProperty("--share", predictions[i]?.probabilities[k] ?? 0));
      show(
        value,
        predictions.map((p, i) =>
          h("span", { class: predictions.length > 1 && RUNS[i].className }, percent(p.probabilities[k], 0)),
        ),
      );
      root.classList.toggle(
        "best",
        predictions.length > 0 && predictions[0].probabilities[k] === Math.max(...predictions[0].probabilities),
      );
    }
    bars.setAttribute(
      "aria-label",
      `Probabilities of the classes: ${predictions.map((p) => p.probabilities.map((value, k) => `${classes()[k]} ${percent(value, 0)}`).join(", ")).join("; run B: ") || "nothing is drawn"}`,
    );
    if (predictions[0]?.seen) paintImage(seen, bytes(predictions[0].seen));
    else paint(seen, [0], 1, 1, () => [0, 0, 0]);
    show(
      answers,
      (predictions.length ? predictions : runs().map(() => null)).map((p, i) =>
        h(
          "div",
          {
            class: `answer ${RUNS[i].className} ${p && p.answer === null ? "unsure" : ""} ${p?.answer?.length > 2 ? "word" : ""}`,
          },
          runs().length > 1 && h("small", {}, RUNS[i].letter),
          h("strong", {}, p ? (p.answer ?? "?") : ""),
          h("span", {}, p ? (p.answer === null ? "not sure" : percent(p.confidence, 0)) : ""),
        ),
      ),
    );
    const untrained = runs()[0] && !(last(runs()[0])?.step > 0);
    const reasoned = predictions.findIndex((p) => p.reason);
    const why = predictions[reasoned]?.reason;
    const whose = runs().length > 1 ? `Run ${RUNS[reasoned]?.letter}: ` : "";
    reason.textContent =
      predictions.length && untrained
        ? "The network is not trained yet: its answer is a guess."
        : why
          ? predictions.some((p) => p.answer === null)
            ? `${whose}${whose ? "n" : "N"}ot sure: ${why}.`
            : `${why[0].toUpperCase()}${why.slice(1)}.`
          : "";
    const text = predictions.map((p) => p.answer ?? "not sure").join(", ");
    if (text && text !== said && !store.experiment?.status?.startsWith("running")) announce(`Answer: ${text}`);
    said = text;
    twin.refresh();
  }

  async function showFlip() {
    disable(flipButton, true);
    const { drawing } = store;
    const norm = Math.hypot(...Array.from(bytes(store.predictions[0].seen), (value) => value / 255));
    try {
      const found = await flip(runs()[store.run] ?? runs()[0]);
      if (drawing !== store.drawing) return; // the answer is about an older drawing
      const pixels = bytes(found.pixels);
      const change = bytes(found.change);
      const [after, difference] = [
        canvas(`The changed image, which the network reads as ${found.to}`),
        canvas("The change: blue pixels become darker, orange pixels brighter"),
      ];
      paintImage(after, pixels);
      const largest = Math.max(1, ...Array.from(change, (value) => Math.abs(value - 128)));
      paint(difference, change, found.width, found.height, (value) => diverging((value - 128) / largest));
      show(
        flipped,
        h("figure", {}, difference, h("figcaption", {}, `change, norm ${fixed(found.norm, 2)}`)),
        h("figure", {}, after, h("figcaption", {}, h("b", {}, `${found.from} → ${found.to}`))),
        h(
          "p",
          { class: "help" },
          `This change of ${fixed(found.norm, 2)} (the image itself has a norm of ${fixed(norm, 1)}) is enough to turn the answer ${found.from} into ${found.to}. The colours are amplified.`,
        ),
      );
    } catch (error) {
      if (!isAbandoned(error)) toast(error.message, "error");
    } finally {
      disable(flipButton, !store.predictions.length);
    }
  }

  on("experiment", () => {
    show(flipped);
    build();
  });
  on("prediction", update);
  on("drawing", () => show(flipped));
  on("theme", update);
  const root = card(
    "What the network sees",
    { class: "answer-card" },
    h("div", { class: "sees" }, h("figure", {}, seen, size), answers),
    bars,
    reason,
    twin,
  );
  return { root, flip: [flipButton, flipped] };
}
