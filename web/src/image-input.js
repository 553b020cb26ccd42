// Images that are dropped on the page, pasted, or chosen from a file.
import { h, toast } from "./dom.js";

const MOST = 62000; // pixels that are sent: the server accepts 64 kB

/** Grey levels of an image file, reduced to at most MOST pixels. Transparent parts are white. */
async function read(file) {
  const bitmap = await createImageBitmap(file);
  const factor = Math.min(1, Math.sqrt(MOST / (bitmap.width * bitmap.height)));
  const width = Math.max(1, Math.floor(bitmap.width * factor));
  const height = Math.max(1, Math.floor(bitmap.height * factor));
  const canvas = h("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const bytes = new Uint8Array(width * height);
  for (let i = 0, k = 0; i < bytes.length; i++, k += 4)
    bytes[i] = Math.round(0.299 * data[k] + 0.587 * data[k + 1] + 0.114 * data[k + 2]);
  return { canvas, drawing: { width, height, channels: 1, bytes, source: "image" } };
}

/** A button that opens an image. received(canvas, drawing) is also called for images that are dropped or pasted. */
export function imageInput(received) {
  async function take(file) {
    if (!file) return;
    try {
      const { canvas, drawing } = await read(file);
      received(canvas, drawing);
    } catch {
      toast(`${file.name || "The clipboard"} is not an image that the browser can open.`, "error");
    }
  }
  const input = h("input", {
    type: "file",
    accept: "image/*",
    class: "visually-hidden",
    tabindex: "-1",
    "aria-hidden": "true",
    onchange: () => {
      take(input.files[0]);
      input.value = "";
    },
  });
  const firstImage = (list) => [...(list ?? [])].find((file) => file.type.startsWith("image/")) ?? [...(list ?? [])][0];

  addEventListener("dragover", (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    document.body.dataset.dropping = "";
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) delete document.body.dataset.dropping;
  });
  addEventListener("drop", (event) => {
    delete document.body.dataset.dropping;
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(firstImage(event.dataTransfer.files));
  });
  addEventListener("paste", (event) => {
    if (event.target.closest?.("input, textarea")) return;
    if (event.clipboardData.files.length) take(firstImage(event.clipboardData.files));
  });

  const button = h(
    "button",
    { type: "button", onclick: () => input.click(), title: "You can also drop an image on the page or paste one" },
    "Image…",
  );
  return [button, input];
}
