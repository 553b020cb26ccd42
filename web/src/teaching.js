// Teaching mode: large fonts and the full screen. The list of keys.
import { h, table, toast } from "./dom.js";

export const KEYS = [
  ["Space", "Start or pause the training"],
  ["S", "Train on one mini-batch"],
  ["E", "Train for one epoch"],
  ["R", "Reset to the initial weights"],
  ["[ and ]", "Lower or raise the learning rate"],
  ["1 to 7", "Open a view"],
  ["C", "Clear the pad"],
  ["U", "Remove the last stroke"],
  ["X", "Show an example image"],
  ["F", "Smallest change that flips the answer"],
  ["← and →", "Step through: one step back or on"],
  ["D", "Light or dark"],
  ["T", "Teaching mode: large fonts, full screen"],
  ["?", "This list"],
];

export async function toggleTeaching() {
  const root = document.documentElement;
  const teaching = !("teaching" in root.dataset);
  if (teaching) root.dataset.teaching = "";
  else delete root.dataset.teaching;
  document.getElementById("teach")?.setAttribute("aria-pressed", String(teaching));
  try {
    if (teaching) await root.requestFullscreen?.();
    else if (document.fullscreenElement) await document.exitFullscreen();
  } catch {
    // large fonts without the full screen, where the browser does not allow it
  }
  dispatchEvent(new Event("resize"));
  if (teaching) toast("Teaching mode. Press T to leave it and ? for the keys.");
}

document.addEventListener("fullscreenchange", () => {
  if (document.fullscreenElement || !("teaching" in document.documentElement.dataset)) return;
  delete document.documentElement.dataset.teaching;
  document.getElementById("teach")?.setAttribute("aria-pressed", "false");
  dispatchEvent(new Event("resize"));
});

let dialog = null;

export function showKeys() {
  if (!dialog) {
    dialog = h(
      "dialog",
      { id: "keys", "aria-label": "Keys" },
      table("Keys", ["Key", "Effect"], KEYS),
      h("form", { method: "dialog" }, h("button", { class: "primary", autofocus: true }, "Close")),
    );
    document.body.append(dialog);
  }
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

/** Call the action of a key, unless the person is typing. keys: {key: action}. */
export function listen(keys) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    if (
      target.closest?.("input:not([type=range]):not([type=checkbox]), select, textarea, dialog[open]") &&
      event.key !== "?"
    )
      return;
    if (event.key === " " && target.closest?.("button, summary, input, a")) return;
    if (event.key.startsWith("Arrow") && target.closest?.("input, [role=tablist], table, .scroll, .uplot")) return;
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
