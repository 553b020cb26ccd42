// The pad: draw a digit with a mouse, a pen or a finger.
import { h } from "./dom.js";
import { cssColor } from "./colors.js";

const SIZE = 112; // pixels that are sent: 224 give the same answers, and take the server about twice as long
const DETAIL = 4; // the pad on the screen is finer
const BRUSH = 1 / 11; // width of the brush, relative to the pad

/** changed(drawing) is called with {width, height, channels, bytes}, or null when the pad is empty. */
export function createPad(changed) {
  const canvas = h("canvas", {
    id: "pad",
    class: "pad",
    width: SIZE * DETAIL,
    height: SIZE * DETAIL,
    role: "img",
    "aria-label": "Pad for drawing a digit. Without a pointer, use an example.",
  });
  const hint = h("p", { class: "pad-hint", "aria-hidden": "true" }, "Draw a digit here");
  const root = h("div", { class: "pad-box" }, canvas, hint);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const small = h("canvas", { width: SIZE, height: SIZE });
  const smallContext = small.getContext("2d", { willReadFrequently: true });
  smallContext.imageSmoothingQuality = "high";
  let strokes = []; // of points {x, y} in units of the pad
  let image = null; // an image instead of strokes

  function redraw() {
    const side = canvas.width;
    context.clearRect(0, 0, side, side);
    if (image) drawImage(side);
    context.strokeStyle = context.fillStyle = cssColor("--ink");
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = BRUSH * side;
    for (const stroke of strokes) line(stroke, side);
    hint.hidden = strokes.length > 0 || image !== null;
  }

  function line(stroke, side) {
    context.beginPath();
    context.moveTo(stroke[0].x * side, stroke[0].y * side);
    if (stroke.length === 1) context.lineTo(stroke[0].x * side + 0.01, stroke[0].y * side);
    // Curves through the middles of the points look smooth at any speed of the hand.
    for (let i = 1; i < stroke.length - 1; i++) {
      const [point, next] = [stroke[i], stroke[i + 1]];
      context.quadraticCurveTo(
        point.x * side,
        point.y * side,
        ((point.x + next.x) / 2) * side,
        ((point.y + next.y) / 2) * side,
      );
    }
    if (stroke.length > 1) context.lineTo(stroke.at(-1).x * side, stroke.at(-1).y * side);
    context.stroke();
  }

  function drawImage(side) {
    const { element, width, height } = image;
    const scale = Math.min(side / width, side / height);
    context.imageSmoothingEnabled = width > 64;
    context.drawImage(element, (side - width * scale) / 2, (side - height * scale) / 2, width * scale, height * scale);
  }

  /** Dark strokes on white, as on paper, whatever the colours of the page are. */
  function read() {
    if (!strokes.length) return null;
    smallContext.clearRect(0, 0, SIZE, SIZE);
    smallContext.drawImage(canvas, 0, 0, SIZE, SIZE);
    const { data } = smallContext.getImageData(0, 0, SIZE, SIZE);
    const bytes = new Uint8Array(SIZE * SIZE);
    for (let i = 0; i < bytes.length; i++) bytes[i] = 255 - data[4 * i + 3];
    return { width: SIZE, height: SIZE, channels: 1, bytes, source: "pad" };
  }

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !event.isPrimary) return; // a second finger does not draw
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    if (image) {
      image = null;
      strokes = [];
    }
    strokes.push([at(event)]);
    redraw();
    changed(read());
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!event.isPrimary || !canvas.hasPointerCapture(event.pointerId)) return; // a touch is always captured
    const coalesced = event.getCoalescedEvents?.() ?? [];
    for (const each of coalesced.length ? coalesced : [event]) strokes.at(-1).push(at(each));
    redraw();
    changed(read());
  });

  return {
    root,
    redraw,
    clear() {
      strokes = [];
      image = null;
      redraw();
      changed(null);
    },
    undo() {
      if (image) image = null;
      else strokes.pop();
      redraw();
      changed(read());
    },
    /** Show an image: a canvas or a bitmap. The caller reports the drawing. */
    show(element, width, height) {
      strokes = [];
      image = { element, width, height };
      redraw();
    },
  };
}
