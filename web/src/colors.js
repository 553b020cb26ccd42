// Colours of pictures. All maps can be told apart with the common kinds of colour blindness.

const dark = () => document.documentElement.dataset.theme === "dark";

// Negative values are blue, positive values are orange, 0 is the colour of the card.
const DIVERGING = {
  light: [
    [10, 62, 128],
    [33, 102, 172],
    [103, 169, 214],
    [247, 246, 243],
    [244, 164, 96],
    [204, 85, 14],
    [122, 40, 2],
  ],
  dark: [
    [190, 226, 255],
    [96, 178, 255],
    [40, 98, 160],
    [27, 30, 37],
    [160, 78, 22],
    [255, 150, 64],
    [255, 222, 178],
  ],
};

// Shares of errors: from the colour of the card to a strong orange.
const HEAT = {
  light: [
    [255, 255, 255],
    [253, 224, 196],
    [247, 170, 102],
    [217, 100, 24],
    [140, 50, 4],
  ],
  dark: [
    [27, 30, 37],
    [72, 45, 28],
    [138, 72, 26],
    [222, 120, 44],
    [255, 190, 120],
  ],
};

// Shares of correct answers: blue.
const COOL = {
  light: [
    [255, 255, 255],
    [214, 230, 246],
    [143, 188, 228],
    [60, 130, 196],
    [14, 74, 140],
  ],
  dark: [
    [27, 30, 37],
    [28, 52, 82],
    [34, 82, 138],
    [60, 132, 206],
    [140, 200, 255],
  ],
};

function interpolate(stops, t) {
  const at = Math.min(Math.max(t, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  const f = at - i;
  return stops[i].map((value, k) => value + f * (stops[i + 1][k] - value));
}

const pick = (map) => (dark() ? map.dark : map.light);

/** Colour [r, g, b] of a value in [-1, 1]. */
export const diverging = (t) => interpolate(pick(DIVERGING), (t + 1) / 2);

/** Colour of a share of errors, in [0, 1]. */
export const heat = (t) => interpolate(pick(HEAT), t);

/** Colour of a share of correct answers, in [0, 1]. */
export const cool = (t) => interpolate(pick(COOL), t);

/** Grey level of a value in [0, 1]: 0 is black, as in the images of MNIST. */
export const grey = (t) => {
  const level = 255 * Math.min(Math.max(t, 0), 1);
  return [level, level, level];
};

/** Colour of a decision: the probability of class 1 in [0, 1]; pale where the network is not sure. */
export const decision = (p) => diverging((dark() ? 0.48 : 0.42) * (2 * p - 1));

// Ten classes of points in the plane, after Okabe and Ito.
export const CLASSES = [
  "#0b6bcb",
  "#d1570e",
  "#0a8f6c",
  "#c0489a",
  "#8a7400",
  "#4aa3d8",
  "#6a4fb3",
  "#5f6770",
  "#a3341f",
  "#2f7d32",
];

/** The text colour that is readable on [r, g, b]. */
export function textOn([r, g, b]) {
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#15171b" : "#ffffff";
}

export const rgb = ([r, g, b]) => `rgb(${r | 0} ${g | 0} ${b | 0})`;

/** Value of a custom property of the style sheet, for canvases. */
export const cssColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Letter, custom property and dash pattern of a run. */
export const RUNS = [
  { letter: "A", color: "--run-a", className: "run-a" },
  { letter: "B", color: "--run-b", className: "run-b" },
];
