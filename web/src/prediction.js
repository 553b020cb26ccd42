// Ask every run what it answers to the drawing: after each change of the drawing, and while the network trains.
import { getJson, bytes, Latest, postBytes, query } from "./api.js";
import { throttle, toast } from "./dom.js";
import { emit, imageShape, isImage, isRunning, on, runs, store } from "./store.js";

const latest = new Latest();
let version = 0; // of the drawing: an answer to an older one is dropped

const address = (run, what) => {
  const { width, height, channels } = store.drawing;
  return `/api/runs/${run.id}/${what}${query({ width, height, channels, epoch: store.epoch })}`;
};

export function predict() {
  if (!store.drawing || !isImage()) {
    store.predictions = [];
    emit("prediction");
    return;
  }
  latest.pause = isRunning() ? 150 : 40; // a reading takes 14 ms of the processor
  latest.ask(async () => {
    const asked = version;
    const { drawing, experiment } = store;
    if (!drawing || !isImage()) return;
    try {
      const answers = await Promise.all(runs().map((run) => postBytes(address(run, "predict"), drawing.bytes)));
      if (asked !== version || experiment !== store.experiment) return;
      store.predictions = answers;
      emit("prediction");
    } catch (error) {
      if ((error.status === 400 || error.status === 413) && asked === version) toast(error.message, "error");
    }
  });
}

/** The smallest change of the image that flips the answer of a run. */
export const flip = (run) => postBytes(address(run, "flip"), store.drawing.bytes);

/** A random image of the validation set: {canvas, drawing}. */
export async function example() {
  const run = runs()[0];
  const index = Math.floor(Math.random() * (run.n_validation || 1));
  const found = await getJson(`/api/runs/${run.id}/activations${query({ index })}`);
  const pixels = bytes(found.pixels);
  const [height, width] = imageShape(pixels.length);
  return {
    pixels,
    drawing: { width, height, channels: 1, bytes: pixels, source: "example", label: run.classes[found.label], index },
  };
}

// While the network trains, answers must not take time from the training, and only two views show them.
const again = throttle(
  () => ["train", "inside"].includes(store.view) && (store.epoch === null || !store.predictions.length) && predict(),
  () => 600 * Math.max(1, runs().length),
);
on("drawing", () => {
  version++;
  predict();
});
on("selection", () => {
  version++;
  predict();
});
on("points", again);
on("experiment", () => {
  version++;
  predict();
});
on("reset", again);
on("status", again);
on("view", again);
