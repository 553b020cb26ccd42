// Questions and commands to the server.

/** An answer other than success. The message is one sentence. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

let open = new AbortController();
let replacing = false;

/** Whether an error says that the answer is not needed any more. */
export const isAbandoned = (error) => error.status === ABANDONED;
const ABANDONED = -1;

/** Abandon all questions about runs while the experiment is replaced, and ask none until done. */
export function replace(begins) {
  replacing = begins;
  if (!begins) return;
  open.abort();
  open = new AbortController();
}

async function request(path, options = {}) {
  const aboutRun = path.startsWith("/api/runs/") || path.startsWith("/api/walkthrough");
  if (aboutRun && replacing) throw new ApiError("", ABANDONED);
  const { signal } = open;
  let response;
  try {
    response = await fetch(path, aboutRun ? { ...options, signal } : options);
  } catch {
    if (aboutRun && signal.aborted) throw new ApiError("", ABANDONED);
    throw new ApiError("The server does not answer. Is handgrad lab still running?", 0);
  }
  if (response.ok) return response;
  let message = `The server answered ${response.status}.`;
  try {
    message = (await response.json()).error ?? message;
  } catch {
    // not JSON: the status is all there is
  }
  throw new ApiError(message, response.status);
}

export async function getJson(path) {
  return (await request(path)).json();
}

export async function getText(path) {
  return (await request(path)).text();
}

/** A float32 array: {values, shape, range, version}. range is null unless the server sends X-Range. */
export async function getFloats(path) {
  const response = await request(path);
  const list = (name) => response.headers.get(name)?.split(",").map(Number) ?? null;
  return {
    values: new Float32Array(await response.arrayBuffer()),
    shape: list("X-Shape"),
    range: list("X-Range"),
    version: response.headers.get("X-Version"),
  };
}

export async function postJson(path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  return (await request(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

export async function postBytes(path, bytes) {
  const headers = { "Content-Type": "application/octet-stream" };
  return (await request(path, { method: "POST", headers, body: bytes })).json();
}

/** Bytes of a base64 text. */
export function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** "?a=1&b=2" without the values that are null. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/** One request at a time; the latest of those that were asked meanwhile follows, the others are dropped. */
export class Latest {
  #busy = false;
  #next = null;

  /** pause: milliseconds between two questions, at least. */
  constructor(pause = 0) {
    this.pause = pause;
  }

  async ask(question) {
    if (this.#busy) {
      this.#next = question;
      return;
    }
    this.#busy = true;
    const begin = performance.now();
    try {
      await question();
      const rest = begin + this.pause - performance.now();
      if (rest > 0) await new Promise((resolve) => setTimeout(resolve, rest));
    } finally {
      this.#busy = false;
      const next = this.#next;
      this.#next = null;
      if (next) this.ask(next);
    }
  }
}
