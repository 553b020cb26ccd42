// The experiment on the page: its runs, their measurements, and what the person selected. Views listen to its changes.
import { getJson, postJson, replace } from "./api.js";
import { announce, toast } from "./dom.js";
import * as link from "./link.js";
import { closeStream, openStream, resumeStream, suspendStream } from "./stream.js";

const listeners = new Map();

/** Call f when something of this name changes: experiment, points, epoch, status, reset, selection, drawing, prediction, view, theme. */
export function on(name, f) {
  if (!listeners.has(name)) listeners.set(name, []);
  listeners.get(name).push(f);
}

export function emit(name, detail) {
  for (const f of listeners.get(name) ?? []) f(detail);
}

export const store = {
  options: null, // what the server offers
  experiment: null, // {id, status, message, runs: [{id, settings, layers, n_parameters, points, epochs, ...}]}
  preset: null, // name of the preset that was opened
  view: "train",
  epoch: null, // the epoch whose weights are shown; null: the current weights
  run: 0, // the run whose mistakes are shown
  drawing: null, // {width, height, channels, bytes, label}: what the network is asked
  predictions: [], // one answer per run
};

export const runs = () => store.experiment?.runs ?? [];
export const dataset = () => store.options?.datasets.find((data) => data.name === runs()[0]?.settings.data) ?? null;
export const isImage = () => dataset()?.image ?? false;
/** [height, width] of an image with this number of pixels: that of the data, or a square if a recipe reduces the images. */
export function imageShape(n) {
  const shape = runs()[0]?.image;
  if (shape && shape[0] * shape[1] === n) return shape;
  const side = Math.round(Math.sqrt(n));
  return side * side === n ? [side, side] : [1, n];
}
export const isRunning = () => store.experiment?.status === "running";
export const last = (run) => run.points.at(-1) ?? null;

const REMEMBERED = "handgrad-lab-experiment";

let creating = null; // the experiment that is being created

/** Start over with these settings, one or two runs. The experiment before is closed. */
export function create(settings, options = {}) {
  const made = (creating ?? Promise.resolve()).catch(() => null).then(() => createNow(settings, options));
  creating = made;
  return made.finally(() => {
    if (creating === made) creating = null;
  });
}

async function createNow(settings, { preset = null }) {
  const before = store.experiment?.id ?? sessionStorage.getItem(REMEMBERED);
  replace(true);
  suspendStream();
  let made;
  try {
    made = await postJson("/api/experiments", { runs: settings, ...(before && { replaces: before }) });
  } catch (error) {
    resumeStream();
    throw error;
  } finally {
    replace(false);
  }
  store.preset = preset;
  adopt(made);
}

/** The experiment that this tab had before it was reloaded, if the server still has it with the same settings. */
export async function resume(settings) {
  const id = sessionStorage.getItem(REMEMBERED);
  if (!id) return false;
  try {
    const found = await getJson(`/api/experiments/${encodeURIComponent(id)}`);
    const same = (a, b) => link.encode({ runs: [a] }) === link.encode({ runs: [b] });
    if (
      settings &&
      !(settings.length === found.runs.length && settings.every((s, i) => same(s, found.runs[i].settings)))
    )
      return false;
    adopt(found);
    return true;
  } catch {
    return false;
  }
}

function adopt(experiment) {
  for (const run of experiment.runs) Object.assign(run, { points: [], epochs: [] });
  store.experiment = experiment;
  store.epoch = null;
  store.run = 0;
  store.predictions = [];
  sessionStorage.setItem(REMEMBERED, experiment.id);
  updateLink();
  emit("experiment");
  emit("status");
  openStream(experiment.id, receive, lost);
}

/** Send a command to the server. Returns whether the server accepted it. */
export async function command(action, values = {}) {
  await creating?.catch(() => null);
  const id = store.experiment?.id;
  if (!id) return false;
  try {
    await postJson(`/api/experiments/${id}/command`, { action, ...values }); // the stream tells the new status
    return true;
  } catch (error) {
    if (error.status === 404) await lost(id);
    else toast(error.message, "error");
    return false;
  }
}

function receive(event) {
  const run = runs().find(({ id }) => id === event.run);
  if (event.type === "point" && run) {
    run.points.push(event);
    emit("points", run);
  } else if (event.type === "epoch" && run) {
    run.epochs = run.epochs.filter(({ epoch }) => epoch !== event.epoch);
    run.epochs.push(event);
    emit("epoch", run);
  } else if (event.type === "status" && event.run) {
    Object.assign(run ?? {}, { status: event.status, message: event.message });
    toast(event.message, "error");
    emit("status");
  } else if (event.type === "warning") {
    toast(event.message);
  } else if (event.type === "status") {
    setStatus(event.status, event.message);
    if (event.status === "closed") {
      closeStream();
      toast("The server ended this run, because another page needed the place. Start it again, or reload.");
    }
  } else if (event.type === "reset") {
    for (const each of runs())
      Object.assign(each, { points: [], epochs: [], status: "ready", message: "", lr: each.settings.lr });
    store.epoch = null;
    emit("reset");
  }
}

function setStatus(status, message) {
  const { experiment } = store;
  if (experiment.status === status && experiment.message === message) return;
  if (experiment.status !== status && ["finished", "diverged", "failed"].includes(status))
    announce(message || `Training: ${status}.`);
  Object.assign(experiment, { status, message });
  emit("status");
}

/** The server does not know the experiment any more: it was restarted, or another page needed the place. */
async function lost(id) {
  if (store.experiment?.id !== id) return;
  const settings = runs().map((run) => run.settings);
  try {
    await create(settings, { preset: store.preset });
    toast("The server no longer had this run. The page set it up again, untrained.");
  } catch (error) {
    toast(error.message, "error");
  }
}

export function setView(view) {
  store.view = view;
  updateLink();
  emit("view");
}

/** Show the weights after an epoch, or after the closest finished one; null: the current weights. */
export function setEpoch(epoch) {
  const finished = [0, ...(runs()[store.run]?.epochs ?? []).map((each) => each.epoch)];
  const closer = (best, each) => (Math.abs(each - epoch) < Math.abs(best - epoch) ? each : best);
  store.epoch = epoch === null ? null : finished.reduce(closer);
  emit("selection");
}

export function setRun(index) {
  store.run = index;
  emit("selection");
}

export function setDrawing(drawing) {
  store.drawing = drawing;
  emit("drawing");
}

/** The address that opens what is on the page. */
export function currentLink() {
  return link.encode({ view: store.view, preset: store.preset, runs: runs().map((run) => run.settings) });
}

function updateLink() {
  if (store.experiment) history.replaceState(null, "", currentLink());
}
