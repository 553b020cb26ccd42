// Numbers as text.

const EMPTY = "–";

/** A number with three significant digits; small and large ones with an exponent. */
export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return EMPTY;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replaceAll("-", "−");
  const text = size >= 100 ? value.toFixed(0) : value.toPrecision(digits);
  return text.replace("-", "−");
}

/** A number with a fixed count of decimals and a real minus sign. */
export function fixed(value, decimals) {
  if (value === null || value === undefined || !Number.isFinite(value)) return EMPTY;
  const text = value.toFixed(decimals);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** 0.9731 as 97.3 %. */
export function percent(value, decimals = 1) {
  if (value === null || value === undefined || !Number.isFinite(value)) return EMPTY;
  return `${(100 * value).toFixed(decimals)}\u00a0%`; // no line ends before the sign
}

/** A number at an axis, as short as possible. */
export function tick(value) {
  if (value === null || value === undefined) return "";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5))
    return value.toExponential(0).replaceAll("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

/** Name of a layer without the parentheses of Python: Sigmoid() is Sigmoid, BatchNorm(n=96, ...) is BatchNorm 96. */
export const layerName = (name) =>
  name
    .replace(/Dense\(n_in=(\d+), n_out=(\d+)[^)]*\)/, "Dense $1-$2")
    .replace(/(\w+)\(n=(\d+)[^)]*\)/, "$1 $2")
    .replace(/\(\)$/, "");

/** 12345 as 12,345. */
export function count(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return EMPTY;
  return Math.round(value).toLocaleString("en");
}

/** 1 as "1 image", 3 as "3 images". */
export const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** A learning rate in the notation that people type: 0.003, without trailing zeros. */
export function rate(value) {
  return value === null || value === undefined ? EMPTY : String(Number(value.toPrecision(3)));
}

/** binary_cross_entropy as "binary cross-entropy". */
export function title(name) {
  const special = {
    binary_cross_entropy: "binary cross-entropy",
    cross_entropy: "cross-entropy",
    squared_error: "squared error",
    relu: "ReLU",
    leaky_relu: "leaky ReLU",
    gelu: "GELU",
    elu: "ELU",
    selu: "SELU",
    silu: "SiLU",
    sgd: "SGD",
    adam: "Adam",
    adamw: "AdamW",
    kaiming_normal: "Kaiming (He)",
    kaiming_uniform: "Kaiming, uniform",
    xavier_normal: "Xavier (Glorot)",
    xavier_uniform: "Xavier, uniform",
    lecun: "LeCun",
    nesterov: "Nesterov",
    muon: "Muon",
    normal: "N(0, 1)",
  };
  return special[name] ?? String(name).replaceAll("_", " ");
}
