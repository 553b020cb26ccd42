// Arrays as images: one value is one pixel of a canvas that the style sheet enlarges.
import { h } from "./dom.js";
import { diverging, grey } from "./colors.js";
import { imageShape } from "./store.js";

/** A canvas with a text for screen readers. */
export function canvas(label, className = "") {
  return h("canvas", { class: `pixels ${className}`, role: "img", "aria-label": label, width: 1, height: 1 });
}

/** Write values, row by row, with a function from a value to [r, g, b]. */
export function paint(element, values, width, height, color) {
  if (element.width !== width || element.height !== height) {
    element.width = width;
    element.height = height;
  }
  const context = element.getContext("2d");
  const image = context.createImageData(width, height);
  const { data } = image;
  for (let i = 0, k = 0; i < width * height; i++, k += 4) {
    if (i >= values.length || Number.isNaN(values[i])) continue; // transparent: the grid has more cells than values
    const [r, g, b] = color(values[i]);
    data[k] = r;
    data[k + 1] = g;
    data[k + 2] = b;
    data[k + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** Paint an image of bytes, 0 black. */
export function paintImage(element, pixels) {
  const [height, width] = imageShape(pixels.length);
  paint(element, pixels, width, height, (value) => grey(value / 255));
}

/** Paint weights: blue below 0, orange above, with the strongest colour at ±scale. */
export function paintWeights(element, values, width, height, scale) {
  paint(element, values, width, height, (value) => diverging(scale ? value / scale : 0));
}

// Row and column of the 8 directions of HOG, in the order of its outputs, as in handgrad.images.hog.
const COMPASS = [
  [1, 2],
  [1, 0],
  [2, 1],
  [0, 1],
  [2, 2],
  [2, 0],
  [0, 2],
  [0, 0],
];

/** Outputs of HOG, or weights for them, as an image: the cells of each direction on its side of the centre. */
export function compass(values) {
  const cells = Math.round(Math.sqrt(values.length / 8));
  const side = 3 * cells + 2;
  const image = new Float32Array(side * side).fill(NaN);
  for (const [k, [row, column]] of COMPASS.entries())
    for (let y = 0; y < cells; y++)
      for (let x = 0; x < cells; x++)
        image[(row * (cells + 1) + y) * side + column * (cells + 1) + x] = values[(k * cells + y) * cells + x];
  return { values: image, width: side, height: side };
}

/** The size that 99.5 % of the values are below: the limit of a color map, so that one outlier does not make the rest pale. */
export function scaleOf(values) {
  const step = Math.max(1, Math.floor(values.length / 20000));
  const sizes = [];
  for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i])) sizes.push(Math.abs(values[i]));
  sizes.sort((a, b) => a - b);
  return sizes.length ? sizes[Math.min(sizes.length - 1, Math.floor(0.995 * sizes.length))] || 1e-12 : 1;
}

/** Width of a grid of n cells that is about twice as wide as high. */
export function gridWidth(n) {
  if (n <= 10) return n;
  let width = Math.ceil(Math.sqrt(2 * n));
  for (let w = width; w <= Math.min(n, width + 4); w++) if (n % w === 0) width = w;
  return width;
}

/** Paint the outputs of HOG, which are not negative: grey from 0 to the largest. */
export function paintHog(element, values) {
  const image = compass(values);
  const top = Math.max(...values);
  paint(element, image.values, image.width, image.height, (value) => grey(value / top));
  return image;
}

/** Paint the activations of a layer as a grid: grey from 0 to the largest, or blue and orange if some are negative. */
export function paintActivations(element, values) {
  const width = gridWidth(values.length);
  const height = Math.ceil(values.length / width);
  const low = Math.min(...values);
  const size = Math.max(...values.map(Math.abs), 1e-12);
  if (low < -1e-6) paint(element, values, width, height, (value) => diverging(value / size));
  else {
    const top = size <= 1 && size > 0.3 ? 1 : size;
    paint(element, values, width, height, (value) => grey(value / top));
  }
  return { width, height };
}
