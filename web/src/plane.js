// Points in the plane with the decision boundary that the network learns.
import { getFloats, getJson, Latest, query } from "./api.js";
import { card, h, numbers, show } from "./dom.js";
import { CLASSES, cssColor, decision, RUNS } from "./colors.js";
import { fixed } from "./format.js";
import { startRuns } from "./settings.js";
import { command, isImage, on, runs, store } from "./store.js";

/** The picture of one run: the probability of class 1 as colour, the points on top. */
export function boundaryCard(r) {
  const picture = h("canvas", {
    class: "boundary",
    role: "img",
    "aria-label": "Decision boundary",
    width: 600,
    height: 600,
  });
  const caption = h("p", { class: "help" });
  const latest = new Latest(250);
  let points = null;
  let pointsOf = null;
  let grid = null;
  const twin = numbers(() => {
    if (!grid) return null;
    const [ny, nx] = grid.shape;
    const n = 9;
    const at = (k, count) => Math.round((k / (n - 1)) * (count - 1));
    const [low, high] = grid.range;
    const x = (k) => fixed(low + (k / (n - 1)) * (high - low), 1);
    return [
      "Probability of class 1 on a grid; rows are y, columns are x",
      ["y", ...Array.from({ length: n }, (_, k) => x(k))],
      Array.from({ length: n }, (_, i) => [
        x(n - 1 - i),
        ...Array.from({ length: n }, (_, j) => fixed(grid.values[at(n - 1 - i, ny) * nx + at(j, nx)], 2)),
      ]),
    ];
  });

  function update() {
    const run = runs()[r];
    root.hidden = !run || isImage();
    if (root.hidden) return;
    latest.ask(async () => {
      const { epoch } = store;
      if (run !== runs()[r] || (epoch !== null && grid?.epoch === epoch)) return;
      try {
        if (pointsOf !== run.id) {
          points = await getJson(`/api/runs/${run.id}/points`);
          pointsOf = run.id;
        }
        grid = { ...(await getFloats(`/api/runs/${run.id}/boundary${query({ epoch })}`)), epoch };
        draw();
      } catch {
        // the next point asks again
      }
    });
  }

  function draw() {
    if (!grid || root.hidden) return;
    const [ny, nx] = grid.shape;
    const [low, high] = grid.range; // of both axes
    const small = h("canvas", { width: nx, height: ny });
    const smallContext = small.getContext("2d");
    const image = smallContext.createImageData(nx, ny);
    for (let i = 0; i < ny; i++) {
      for (let j = 0; j < nx; j++) {
        const color = decision(grid.values[i * nx + j]);
        image.data.set([...color, 255], 4 * ((ny - 1 - i) * nx + j)); // y points up
      }
    }
    smallContext.putImageData(image, 0, 0);
    const side = picture.width;
    const context = picture.getContext("2d");
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, side, side);
    drawLine(context, side, nx, ny);
    const radius = side / 95;
    const dot = ([x, y, label], filled) => {
      const [px, py] = [((x - low) / (high - low)) * side, (1 - (y - low) / (high - low)) * side];
      context.beginPath();
      // Class 0 is a circle and class 1 a square: colours are not the only difference.
      if (label === 1) context.rect(px - radius, py - radius, 2 * radius, 2 * radius);
      else context.arc(px, py, radius * 1.1, 0, 2 * Math.PI);
      const color = label < 2 ? cssColor(RUNS[label].color) : CLASSES[label % CLASSES.length];
      context.fillStyle = filled ? color : cssColor("--surface");
      context.strokeStyle = filled ? cssColor("--surface") : color;
      context.lineWidth = filled ? 1.2 : 2.5;
      context.fill();
      context.stroke();
    };
    for (const point of (points?.validation ?? []).slice(0, 300)) dot(point, false);
    for (const point of (points?.train ?? []).slice(0, 800)) dot(point, true);
    picture.setAttribute("aria-label", `Decision boundary of ${points?.train.length ?? 0} points`);
    caption.textContent = `Blue circles are class 0, orange squares class 1. Filled: training, hollow: validation. The background is the answer of the network; it is pale where the network is not sure.`;
    twin.refresh();
  }

  /** The line where the probability is 1/2. */
  function drawLine(context, side, nx, ny) {
    context.strokeStyle = cssColor("--ink");
    context.lineWidth = side / 260;
    context.beginPath();
    const value = (i, j) => grid.values[i * nx + j] - 0.5;
    const px = (j) => ((j + 0.5) / nx) * side;
    const py = (i) => (1 - (i + 0.5) / ny) * side;
    for (let i = 0; i < ny - 1; i++) {
      for (let j = 0; j < nx - 1; j++) {
        const corners = [
          [i, j],
          [i, j + 1],
          [i + 1, j + 1],
          [i + 1, j],
        ];
        const crossings = [];
        for (let k = 0; k < 4; k++) {
          const [a, b] = [corners[k], corners[(k + 1) % 4]];
          const [va, vb] = [value(...a), value(...b)];
          if (va > 0 !== vb > 0) {
            const t = va / (va - vb);
            crossings.push([px(a[1] + t * (b[1] - a[1])), py(a[0] + t * (b[0] - a[0]))]);
          }
        }
        for (let k = 0; k + 1 < crossings.length; k += 2) {
          context.moveTo(...crossings[k]);
          context.lineTo(...crossings[k + 1]);
        }
      }
    }
    context.stroke();
  }

  const title = h("span", { class: `run-name ${RUNS[r].className}` });
  const root = card(
    "Decision boundary",
    { class: "boundary-card", tools: h("div", { class: "tools" }, title) },
    picture,
    caption,
    twin,
  );
  on("experiment", () => {
    grid = null;
    pointsOf = null;
    title.textContent = runs().length > 1 ? `Run ${RUNS[r].letter}` : "";
  });
  return { root, update, draw };
}

/** Buttons for the data sets in the plane. */
export function planeChooser() {
  const list = h("div", { class: "presets" });
  const text = h("p", { class: "lead" });
  function build() {
    const current = runs()[0]?.settings.data;
    show(
      list,
      store.options.datasets
        .filter((data) => !data.image && data.available)
        .map((data) =>
          h(
            "button",
            {
              type: "button",
              class: "preset",
              "aria-pressed": String(data.name === current),
              id: `plane-${data.name}`,
              "data-plane": data.name,
              onclick: async () => {
                await openPlane(data.name);
                command("start");
              },
            },
            h("strong", {}, data.title),
          ),
        ),
    );
    text.textContent = isImage()
      ? "The run on this page learns images. Choose points to replace it."
      : (store.options.presets.find((each) => each.name === current)?.text ??
        "A network with two inputs: every point of the plane is an input, so that the picture shows all that the network has learned.");
  }
  on("experiment", build);
  const root = card("Data in the plane", { class: "plane-chooser" }, list, text);
  return { root };
}

/** Set up a network for a data set in the plane: as its preset does, or as that of the moons. */
export async function openPlane(name) {
  const preset = store.options.presets.find((each) => each.name === name);
  const model = preset ?? store.options.presets.find((each) => each.runs.length === 1);
  await startRuns(
    [{ ...model.runs[0], ...(preset ? {} : { hidden: [8], epochs: 200 }), data: name }],
    preset?.name ?? null,
  );
}
