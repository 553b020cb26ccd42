// The drawing on the home page: draws strokes, prepares them as in MNIST, and shows the answer of the exported network,
// which model.js defines as handgradDigits.

(() => {
  const SIZE = 280; // pixels of the pad
  const PEN = 19; // width of the strokes in pixels
  const SIDE = 28; // pixels of an image of MNIST
  const DIGIT = 20; // the longer side of a digit in it

  // A 3, a 7 and a 6, as points of strokes in pixels of the pad.
  const EXAMPLES = [
    [[[88, 82], [112, 56], [150, 52], [180, 74], [176, 106], [148, 128], [122, 132], [152, 134], [184, 154], [190, 190], [164, 222], [122, 228], [86, 206]]],
    [[[80, 70], [130, 66], [196, 62], [172, 112], [150, 164], [136, 228]]],
    [[[172, 58], [124, 96], [98, 152], [102, 206], [138, 230], [178, 214], [184, 176], [150, 156], [112, 174]]],
  ];

  const root = document.getElementById("draw");
  const pad = root.querySelector(".draw-pad");
  const seen = root.querySelector(".draw-seen");
  const answer = root.querySelector(".draw-answer");
  const context = pad.getContext("2d", { willReadFrequently: true });
  const network = globalThis.handgradDigits;

  const bars = network.CLASSES.map((name) => {
    const row = root.querySelector(".draw-bars").appendChild(document.createElement("li"));
    row.innerHTML = '<span></span><span class="draw-track"><div class="draw-bar"></div></span><span class="draw-percent"></span>';
    row.firstChild.textContent = name;
    return { row, bar: row.querySelector(".draw-bar"), percent: row.lastChild };
  });

  const accuracy = `${(100 * network.ACCURACY).toFixed(1)} %`;
  root.querySelector(".draw-accuracy").textContent = `It reads ${accuracy} of MNIST's 10,000 test images correctly.`;

  let isExample = false;
  let last = null; // end of the current stroke while the pen is down

  // The digit as in MNIST: cropped, its longer side scaled to 20 pixels, its centre of mass in the middle of 28 x 28.
  // Returns null if nothing is drawn.
  function prepare() {
    const rgba = context.getImageData(0, 0, SIZE, SIZE).data;
    let [left, top, right, bottom] = [SIZE, SIZE, -1, -1];
    for (let y = 0; y < SIZE; y++) {
      for (let x = 0; x < SIZE; x++) {
        if (rgba[4 * (y * SIZE + x)] < 40) continue;
        left = Math.min(left, x);
        right = Math.max(right, x);
        top = Math.min(top, y);
        bottom = Math.max(bottom, y);
      }
    }
    if (right < 0) return null;
    const [width, height] = [right - left + 1, bottom - top + 1];
    const scale = Math.max(width, height) / DIGIT; // pixels of the pad per pixel of the image

    // The centre of mass in pixels of the pad.
    let [m, mx, my] = [0, 0, 0];
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const ink = rgba[4 * (y * SIZE + x)];
        m += ink;
        mx += ink * (x + 0.5);
        my += ink * (y + 0.5);
      }
    }
    const [x0, y0] = [mx / m - (scale * SIDE) / 2, my / m - (scale * SIDE) / 2]; // the upper left corner of the image

    // Each pixel is the mean over its square of the pad.
    const digit = new Uint8Array(SIDE * SIDE);
    for (let i = 0; i < SIDE; i++) {
      for (let j = 0; j < SIDE; j++) {
        let [sum, count] = [0, 0];
        const [fromY, toY] = [Math.round(y0 + i * scale), Math.round(y0 + (i + 1) * scale)];
        const [fromX, toX] = [Math.round(x0 + j * scale), Math.round(x0 + (j + 1) * scale)];
        for (let y = fromY; y < toY; y++) {
          for (let x = fromX; x < toX; x++, count++) {
            if (x >= 0 && x < SIZE && y >= 0 && y < SIZE) sum += rgba[4 * (y * SIZE + x)];
          }
        }
        digit[i * SIDE + j] = count ? Math.round(sum / count) : 0;
      }
    }
    return digit;
  }

  function read() {
    const digit = prepare();
    const image = new ImageData(SIDE, SIDE);
    for (let i = 0; i < SIDE * SIDE; i++) {
      const ink = digit === null ? 0 : digit[i];
      image.data.set([ink, ink, ink, 255], 4 * i);
    }
    seen.getContext("2d").putImageData(image, 0, 0);
    const p = digit === null ? null : network.predictProba(digit);
    const best = p === null ? -1 : p.indexOf(Math.max(...p));
    bars.forEach(({ row, bar, percent }, k) => {
      row.classList.toggle("draw-best", k === best);
      bar.style.width = p === null ? "0" : `${100 * p[k]}%`;
      percent.textContent = p === null ? "" : `${Math.floor(100 * p[k])}%`;
    });
    answer.textContent = p === null ? "Draw a digit." : `The network reads ${network.CLASSES[best]}.`;
  }

  function clear() {
    context.fillStyle = "black";
    context.fillRect(0, 0, SIZE, SIZE);
    isExample = false;
  }

  function line(from, to) {
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
  }

  let next = 0;
  function example() {
    clear();
    for (const stroke of EXAMPLES[next]) {
      context.beginPath(); // a smooth curve: from midpoint to midpoint, with the points as control points
      context.moveTo(...stroke[0]);
      for (let i = 1; i < stroke.length - 1; i++) {
        const [[x, y], [u, v]] = [stroke[i], stroke[i + 1]];
        context.quadraticCurveTo(x, y, (x + u) / 2, (y + v) / 2);
      }
      context.lineTo(...stroke.at(-1));
      context.stroke();
    }
    next = (next + 1) % EXAMPLES.length;
    isExample = true;
    read();
  }

  function position(event) {
    const box = pad.getBoundingClientRect();
    return [((event.clientX - box.left) * SIZE) / box.width, ((event.clientY - box.top) * SIZE) / box.height];
  }

  pad.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button !== 0) return;
    event.preventDefault();
    pad.setPointerCapture(event.pointerId);
    if (isExample) clear();
    last = position(event);
    line(last, last); // a dot
  });
  pad.addEventListener("pointermove", (event) => {
    if (last === null || !event.isPrimary) return;
    const to = position(event);
    line(last, to);
    last = to;
    read();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    pad.addEventListener(name, (event) => {
      if (last === null || !event.isPrimary) return;
      last = null;
      read();
    });
  }
  root.querySelector(".draw-clear").addEventListener("click", () => {
    clear();
    read();
  });
  root.querySelector(".draw-example").addEventListener("click", example);

  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = "white";
  example();
})();
