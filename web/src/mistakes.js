// From an epoch to its confusion matrix, from a cell to the images in it, from an image to its activations.
import { bytes, getJson, isAbandoned, Latest, query } from "./api.js";
import { card, choice, h, numbers, show, toast } from "./dom.js";
import { cool, heat, rgb, RUNS, textOn } from "./colors.js";
import { fixed, layerName, percent, plural } from "./format.js";
import { canvas, paintActivations, paintHog, paintImage } from "./pixels.js";
import { isRunning, last, on, runs, setEpoch, setRun, store } from "./store.js";

export function mistakesView() {
  const latest = new Latest();
  const which = h("div", { class: "tools" });
  const slider = h("input", {
    type: "range",
    min: 0,
    max: 0,
    step: 1,
    id: "epoch-slider",
    oninput: () => choose(Number(slider.value)),
  });
  const sliderText = h("output", { for: "epoch-slider" });
  const matrix = h("div", { class: "scroll confusion-box" });
  const summary = h("p", { class: "help" });
  const gallery = h("div", { class: "gallery" });
  const galleryTitle = h("h2", {}, "Images of a cell");
  const galleryHelp = h("p", { class: "help" }, "Select a cell of the matrix to see its images.");
  const inside = h("div", { class: "inside-image" });
  const insideHelp = h("p", { class: "help" }, "Select an image to see what happens to it in the network.");
  let snapshots = []; // epochs with weights
  let cell = null; // [true class, predicted class]
  let image = null; // index of the selected image
  let confusion = null; // its step names the weights of the images and of the activations

  const run = () => runs()[store.run] ?? runs()[0];

  function build() {
    cell = image = null;
    confusion = null;
    show(matrix);
    show(gallery);
    show(inside);
    show(
      which,
      runs().length > 1 &&
        choice(
          "Run",
          runs().map((_, i) => [i, `Run ${RUNS[i].letter}`]),
          store.run,
          setRun,
        ),
    );
    refresh();
  }

  /** Epochs first, then everything that depends on the selected one. */
  function refresh() {
    latest.ask(async () => {
      const asked = run();
      if (!asked) return;
      try {
        snapshots = await getJson(`/api/runs/${asked.id}/epochs`);
        if (store.epoch !== null) store.epoch = snapshots[nearest(store.epoch)].epoch; // not all epochs are kept
        drawSlider();
        const { epoch } = store;
        const answer = await getJson(`/api/runs/${asked.id}/confusion${query({ epoch })}`);
        const selected = cell;
        const shown = image;
        const [images, activations] = await Promise.all([
          selected && getImages(answer, selected),
          shown !== null && getActivations(answer, shown),
        ]);
        if (asked !== run() || epoch !== store.epoch) return; // the next answer is on its way
        confusion = answer;
        matrix.dataset.epoch = epoch ?? "now";
        drawSlider();
        drawMatrix();
        if (selected && selected === cell) drawGallery(images);
        if (shown !== null && shown === image) drawImage(activations);
        if (selected !== cell || shown !== image) refresh(); // a click came in between
      } catch (error) {
        if (store.epoch !== null && error.status === 404)
          setEpoch(null); // that snapshot does not exist any more
        else if (!isAbandoned(error)) summary.textContent = error.message;
      }
    });
  }

  function drawSlider() {
    slider.max = snapshots.length; // one more than the last index: the current weights
    const at = store.epoch === null ? snapshots.length : nearest(store.epoch);
    slider.value = at;
    sliderText.textContent =
      store.epoch === null ? currentText() : `after epoch ${snapshots[at]?.epoch ?? store.epoch}`;
    slider.setAttribute("aria-valuetext", sliderText.textContent);
  }

  /** The epoch of the matrix, which is not "now" any more as soon as the run takes another step. */
  function currentText() {
    if (!confusion || matrix.dataset.epoch !== "now") return "now";
    const epoch = (confusion.step / run().steps_per_epoch).toFixed(2);
    const isNow = !isRunning() && confusion.step === (last(run())?.step ?? 0);
    return isNow ? `now (epoch ${epoch})` : `epoch ${epoch}`;
  }

  const nearest = (epoch) =>
    snapshots.reduce(
      (best, snapshot, i) => (Math.abs(snapshot.epoch - epoch) < Math.abs(snapshots[best].epoch - epoch) ? i : best),
      0,
    );

  const choose = (i) => setEpoch(i >= snapshots.length ? null : snapshots[i].epoch);

  function drawMatrix() {
    const { classes, matrix: rows, accuracy } = confusion;
    const totals = rows.map((row) => row.reduce((a, b) => a + b, 0));
    const all = totals.reduce((a, b) => a + b, 0);
    const wrong = all - rows.reduce((sum, row, i) => sum + row[i], 0);
    const worst = Math.max(1, ...rows.flatMap((row, i) => row.filter((_, j) => j !== i)));
    summary.textContent = `Accuracy ${percent(accuracy, 2)}: ${plural(wrong, "mistake")} in ${plural(all, "validation image")}. Rows are true classes, columns are answers.`;
    const focused = document.activeElement?.dataset?.cell;
    const body = rows.map((row, i) =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }, classes[i]),
        row.map((n, j) => {
          const color =
            i === j ? cool(totals[i] ? 0.85 * (n / totals[i]) : 0) : heat(n ? 0.15 + 0.85 * Math.sqrt(n / worst) : 0);
          const button = h(
            "button",
            {
              type: "button",
              "data-cell": `${i},${j}`,
              tabindex: (cell ? cell[0] === i && cell[1] === j : i === 0 && j === 0) ? 0 : -1,
              "aria-pressed": String(cell?.[0] === i && cell?.[1] === j),
              "aria-label": `True ${classes[i]}, answer ${classes[j]}: ${plural(n, "image")}`,
              onclick: () => selectCell(i, j),
              onkeydown: move,
            },
            n ? String(n) : "",
          );
          button.style.setProperty("--cell", rgb(color));
          button.style.setProperty("--cell-ink", textOn(color));
          return h("td", {}, button);
        }),
      ),
    );
    show(
      matrix,
      h(
        "table",
        { class: "confusion" },
        h(
          "caption",
          { class: "visually-hidden" },
          "Confusion matrix: rows are true classes, columns are answers. Move with the arrow keys, select with Enter.",
        ),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("td", { class: "corner" }, h("span", {}, "true ↓ answer →")),
            classes.map((name) => h("th", { scope: "col" }, name)),
          ),
        ),
        h("tbody", {}, body),
      ),
    );
    matrix.style.setProperty("--classes", classes.length + 1);
    const longest = Math.max(...classes.map((name) => name.length));
    matrix.style.setProperty("--head", `min(${longest + 1.5}ch, 3.6rem)`);
    if (focused) matrix.querySelector(`[data-cell="${focused}"]`)?.focus();
  }

  function move(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const [i, j] = event.currentTarget.dataset.cell.split(",").map(Number);
    const next = matrix.querySelector(`[data-cell="${i + step[0]},${j + step[1]}"]`);
    if (!next) return;
    event.currentTarget.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  function selectCell(i, j) {
    cell = [i, j];
    image = null;
    show(inside);
    drawMatrix();
    const asked = cell;
    ask(
      () => getImages(confusion, asked),
      (images) => asked === cell && drawGallery(images),
    );
  }

  /** Ask about the weights of the matrix, and draw the answer unless there is a newer matrix, which has drawn its own. */
  async function ask(question, draw) {
    const before = confusion;
    try {
      const answer = await question();
      if (confusion === before) draw(answer);
    } catch (error) {
      if (error.status === 404)
        refresh(); // the server has forgotten these weights
      else if (!isAbandoned(error)) toast(error.message, "error");
    }
  }

  const getImages = ({ step }, [i, j]) =>
    getJson(`/api/runs/${run().id}/images${query({ step, true: i, predicted: j, limit: 60 })}`);

  const getActivations = ({ step }, index) => getJson(`/api/runs/${run().id}/activations${query({ step, index })}`);

  function drawGallery(answer) {
    const [i, j] = cell;
    const { classes } = confusion;
    galleryTitle.textContent = i === j ? `${classes[i]}, read correctly` : `${classes[i]}, read as ${classes[j]}`;
    galleryHelp.textContent = answer.total
      ? `${plural(answer.total, "image")}${answer.total > answer.images.length ? `, the first ${answer.images.length}` : ""}. The number is the probability that the network gives to its answer.`
      : "No image of the validation set is in this cell.";
    show(
      gallery,
      answer.images.map((each) => {
        const picture = canvas("", "");
        picture.setAttribute("aria-hidden", "true");
        paintImage(picture, bytes(each.pixels));
        return h(
          "button",
          {
            type: "button",
            class: "digit",
            id: `image-${each.index}`,
            "aria-pressed": String(each.index === image),
            "aria-label": `Image ${each.index}: a ${classes[i]}, read as ${classes[j]} with ${percent(each.probability, 0)}`,
            onclick: (event) => selectImage(each.index, event.currentTarget),
          },
          picture,
          h("small", {}, percent(each.probability, 0)),
        );
      }),
    );
  }

  function selectImage(index, button) {
    image = index;
    for (const other of gallery.children) other.setAttribute("aria-pressed", String(other === button));
    ask(
      () => getActivations(confusion, index),
      (found) => index === image && drawImage(found),
    );
  }

  function drawImage(found) {
    const { classes } = confusion;
    const picture = canvas(`Image ${image}: a ${classes[found.label]}`, "large");
    paintImage(picture, bytes(found.pixels));
    const best = found.probabilities.indexOf(Math.max(...found.probabilities));
    insideHelp.textContent = `Image ${image} of the validation set. Label ${classes[found.label]}, answer ${classes[best]} with ${percent(found.probabilities[best])}.`;
    show(
      inside,
      picture,
      layerFigures(found.layers),
      probabilityBars(classes, found.probabilities),
      numbers(() => [
        "Probabilities",
        ["Class", "Probability"],
        found.probabilities.map((p, k) => [classes[k], fixed(p, 4)]),
      ]),
    );
  }

  on("experiment", build);
  on("reset", build);
  for (const name of ["points", "status"]) on(name, () => store.epoch === null && confusion && drawSlider());
  on("selection", () => {
    const group = which.firstChild;
    if (group) [...group.children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === store.run)));
  });
  const root = h(
    "div",
    { class: "view mistakes-view" },
    card(
      "Confusion matrix",
      { class: "confusion-card", tools: which },
      h("div", { class: "epoch-picker" }, h("label", { for: "epoch-slider" }, "Weights"), slider, sliderText),
      summary,
      matrix,
    ),
    h("section", { class: "card gallery-card" }, h("header", {}, galleryTitle), galleryHelp, gallery),
    card("Inside one image", { class: "inside-card" }, insideHelp, inside),
  );
  return {
    root,
    update: refresh,
    redraw: () => confusion && drawMatrix(),
    wantsPoints: () => store.epoch === null,
    // Milliseconds. A large network takes longer, so that its matrices use at most 4 % of a processor: see WORK_SHARE.
    interval: () => Math.max(2000, 25000 * (confusion?.seconds ?? 0)),
  };
}

/** One picture of activations per layer. */
export function layerFigures(layers) {
  return layers.map((layer) => {
    const picture = canvas("", "activations");
    const hog = layer.kind === "hog";
    const { width, height } = (hog ? paintHog : paintActivations)(picture, layer.values);
    picture.style.setProperty("--columns", hog ? width * 0.6 : width);
    const largest = layer.values.indexOf(Math.max(...layer.values));
    picture.setAttribute(
      "aria-label",
      `${layerName(layer.name)}: ${layer.values.length} outputs, the largest is ${fixed(layer.values[largest], 2)} of unit ${largest}`,
    );
    const figure = h(
      "figure",
      { class: "layer-figure" },
      h("figcaption", {}, h("b", {}, layerName(layer.name)), ` ${layer.values.length} ${hog ? "outputs: strength of the edges in 8 directions" : "units"}`),
      picture,
      numbers(() => [layerName(layer.name), ["Unit", "Output"], layer.values.map((value, i) => [i, fixed(value, 4)])]),
    );
    figure.dataset.rows = height;
    return figure;
  });
}

/** Bars of probabilities. */
export function probabilityBars(classes, probabilities) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  const names = `${Math.max(1.6, ...classes.map((name) => name.length))}ch`;
  const bars = h(
    "div",
    {
      class: "bars small",
      role: "img",
      "aria-label": `Probabilities: ${probabilities.map((p, k) => `${classes[k]} ${percent(p, 0)}`).join(", ")}`,
    },
    probabilities.map((p, k) => {
      const fill = h("i", { class: "run-a" });
      fill.style.setProperty("--share", p);
      return h(
        "div",
        { class: `bar ${k === best ? "best" : ""}` },
        h("b", {}, classes[k]),
        h("div", { class: "tracks" }, h("span", { class: "track" }, fill)),
        h("span", { class: "value" }, percent(p, 0)),
      );
    }),
  );
  bars.style.setProperty("--name", names);
  return bars;
}
