// The events of an experiment. The stream is closed while the page is hidden, because a browser opens only six
// connections to a server, and continues where it was when the page is visible again.
import { getJson } from "./api.js";

let source = null;
let current = null; // {id, next, receive, lost}
let retry = null;

export function openStream(id, receive, lost) {
  current = { id, next: 0, receive, lost };
  connect();
}

/** Close the stream while the experiment is replaced; connect again if that fails. */
export const suspendStream = disconnect;
export const resumeStream = connect;

/** The experiment was closed: do not connect again. */
export function closeStream() {
  current = null;
  disconnect();
}

function disconnect() {
  source?.close();
  source = null;
  clearTimeout(retry);
}

function connect() {
  disconnect();
  if (!current || document.hidden) return;
  const { id, receive } = current;
  source = new EventSource(`/api/experiments/${id}/events?since=${current.next}`);
  source.onopen = () => document.documentElement.removeAttribute("data-offline");
  source.onmessage = (message) => {
    if (current?.id !== id) return;
    const index = Number(message.lastEventId.split(":").at(-1));
    if (Number.isFinite(index)) {
      if (index < current.next) return; // sent again after a reconnection
      current.next = index + 1;
    }
    receive(JSON.parse(message.data));
  };
  source.onerror = () => {
    disconnect();
    retry = setTimeout(ask, 1000);
  };
}

/** After an error: is the experiment gone, or the server? */
async function ask() {
  const asked = current;
  try {
    await getJson(`/api/experiments/${asked.id}`);
    if (asked === current) connect();
  } catch (error) {
    if (asked !== current) return;
    if (error.status === 404) asked.lost(asked.id);
    else {
      document.documentElement.dataset.offline = "";
      retry = setTimeout(ask, 2000);
    }
  }
}

document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
addEventListener("pagehide", () => {
  disconnect();
  // The server pauses the run soon, unless this page comes back: it may only be reloaded.
  if (current) navigator.sendBeacon(`/api/experiments/${current.id}/command`, JSON.stringify({ action: "leave" }));
});
addEventListener("pageshow", (event) => event.persisted && connect());
