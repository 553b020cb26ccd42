// Settings in the address: #view=train&run=data:mnist~hidden:30~lr:0.5&run=... A link opens the same runs.

const SEPARATOR = "~";

function encodeRun(settings) {
  return Object.entries(settings)
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => `${name}:${encodeURIComponent(Array.isArray(value) ? value.join("-") : value)}`)
    .join(SEPARATOR);
}

function decodeRun(text, defaults) {
  const settings = { ...defaults };
  for (const part of text.split(SEPARATOR)) {
    const colon = part.indexOf(":");
    if (colon < 1) continue;
    const name = part.slice(0, colon);
    const value = decodeURIComponent(part.slice(colon + 1));
    if (!(name in defaults)) continue;
    if (name === "hidden") settings.hidden = value === "" ? [] : value.split("-").map(Number);
    else if (typeof defaults[name] === "number") settings[name] = Number(value);
    else if (typeof defaults[name] === "boolean") settings[name] = value === "true";
    else settings[name] = value;
  }
  return settings;
}

/** The part of an address after #. */
export function encode({ view, runs, preset }) {
  const parts = [];
  if (view) parts.push(`view=${view}`);
  if (preset) parts.push(`preset=${encodeURIComponent(preset)}`);
  else for (const run of runs ?? []) parts.push(`run=${encodeRun(run)}`);
  return `#${parts.join("&")}`;
}

/** {view, preset, runs} of an address; what it does not say is null. */
export function decode(hash, defaults) {
  const found = { view: null, preset: null, runs: [] };
  for (const part of hash.replace(/^#/, "").split("&")) {
    const equals = part.indexOf("=");
    if (equals < 0) continue;
    const [name, value] = [part.slice(0, equals), part.slice(equals + 1)];
    try {
      if (name === "view") found.view = decodeURIComponent(value);
      else if (name === "preset") found.preset = decodeURIComponent(value);
      else if (name === "run" && found.runs.length < 2) found.runs.push(decodeRun(value, defaults));
    } catch {
      // a damaged escape: ignore this part
    }
  }
  return found;
}
