// The drawing pad of Model.draw, in a notebook. Its Python side is widget.py.
// The view sends the drawing as `drawing`, SIZE x SIZE grey levels, and shows `answer`, which Python computes.

const SIZE = 280; // pixels of the canvas, as in widget.py
const PEN = 20; // width of the strokes in pixels
const DELAY = 80; // milliseconds between two readings while a stroke is drawn

function element(parent, tag, className, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  parent.append(node);
  return node;
}

// Paint grey levels, one byte per pixel, where 0 is black.
function paint(canvas, levels) {
  const image = new ImageData(canvas.width, canvas.height);
  for (let i = 0; i < levels.length; i++) {
    image.data.set([levels[i], levels[i], levels[i], 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// Show what the network sees of a digit, its answer, and a bar for each probability.
function showReading(parent, reading) {
  const card = element(parent, "div", "handgrad-reading");
  const [height, width] = [reading.digit.length, reading.digit[0].length];
  element(card, "div", "handgrad-caption", `The network sees (${height}x${width}):`);
  const seen = element(card, "canvas", "handgrad-seen");
  [seen.height, seen.width] = [height, width];
  seen.setAttribute("role", "img");
  seen.setAttribute("aria-label", "what the network sees");
  paint(seen, reading.digit.flat());
  element(card, "div", "handgrad-label", reading.label ?? "not sure");
  element(card, "div", "handgrad-reason", reading.reason);
  for (const [name, p] of reading.bars) {
    const row = element(card, "div", "handgrad-row");
    element(row, "span", "handgrad-name", name);
    const bar = element(element(row, "span", "handgrad-track"), "span", "handgrad-bar");
    bar.style.width = `${100 * p}%`;
    element(row, "span", "handgrad-percent", `${Math.floor(100 * p)}%`);
    row.classList.toggle("handgrad-best", name === reading.label);
  }
}

function render({ model, el }) {
  const root = element(el, "div", "handgrad-draw");
  const left = element(root, "div", "handgrad-pad");
  const pad = element(left, "canvas", "handgrad-canvas");
  pad.width = pad.height = SIZE;
  pad.setAttribute("role", "img");
  pad.setAttribute("aria-label", "drawing pad: draw a digit");
  const clear = element(left, "button", "handgrad-clear", "Clear");
  clear.type = "button";
  const result = element(root, "div", "handgrad-result");
  result.setAttribute("aria-live", "polite");

  const context = pad.getContext("2d", { willReadFrequently: true });
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";

  function wipe() {
    context.fillStyle = "white";
    context.fillRect(0, 0, SIZE, SIZE);
  }

  let timer = null;
  function send() {
    clearTimeout(timer);
    timer = null;
    const rgba = context.getImageData(0, 0, SIZE, SIZE).data;
    const levels = new Uint8Array(SIZE * SIZE);
    for (let i = 0; i < levels.length; i++) levels[i] = rgba[4 * i];
    model.set("drawing", new DataView(levels.buffer));
    model.save_changes();
  }

  let last = null; // end of the current stroke, while the pen is down
  function position(event) {
    const box = pad.getBoundingClientRect();
    return [((event.clientX - box.left) * SIZE) / box.width, ((event.clientY - box.top) * SIZE) / box.height];
  }
  function line(to) {
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(...to);
    context.stroke();
    last = to;
    timer ??= setTimeout(send, DELAY);
  }
  pad.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button !== 0) return;
    event.preventDefault();
    pad.setPointerCapture(event.pointerId);
    last = position(event);
    line([last[0] + 0.1, last[1]]); // a dot: a line of length 0 has no ends
  });
  pad.addEventListener("pointermove", (event) => {
    if (last === null || !event.isPrimary) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) line(position(each));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    pad.addEventListener(name, (event) => {
      if (last === null || !event.isPrimary) return;
      last = null;
      send();
    });
  }
  clear.addEventListener("click", () => {
    wipe();
    send();
  });

  function show() {
    result.replaceChildren();
    const answer = model.get("answer");
    if (answer.message) element(result, "div", "handgrad-message", answer.message);
    for (const reading of answer.readings ?? []) showReading(result, reading);
  }
  model.on("change:answer", show);
  wipe();
  const drawing = model.get("drawing");
  if (drawing?.byteLength === SIZE * SIZE) {
    paint(pad, new Uint8Array(drawing.buffer, drawing.byteOffset, drawing.byteLength)); // the widget is shown again
  }
  show();
  return () => {
    clearTimeout(timer);
    model.off("change:answer", show);
  };
}

export default { render };
