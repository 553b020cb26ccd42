// Elements of the page. Text is always set as text, so that no answer of the server is read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element: h("button", {class: "primary", onclick: start}, "Start"). */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** An element of an SVG picture. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Replace the children of an element. If one of them has the focus, its successor with the same id gets it. */
export function show(parent, ...children) {
  const active = document.activeElement;
  const id = parent.contains(active) && !isClicked(active) && active.id;
  parent.replaceChildren(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  if (id && document.activeElement === document.body) document.getElementById(id)?.focus({ preventScroll: true });
  return parent;
}

/** Whether a button has the focus because of a click: then the key Space belongs to the training. */
const isClicked = (element) => element.matches("button:not(:focus-visible)");

const disabledInFocus = new WeakSet();

/** Disable or enable a button. A button that loses the focus because it is disabled gets it back. */
export function disable(button, disabled) {
  if (disabled && document.activeElement === button && !isClicked(button)) disabledInFocus.add(button);
  button.disabled = disabled;
  if (!disabled && disabledInFocus.delete(button) && document.activeElement === document.body) button.focus();
}

let unique = 0;

/** A label with its control, and a line of help under them. */
export function field(label, control, help) {
  control.id ||= `f${++unique}`;
  const text = help && h("small", { id: `${control.id}-help`, class: "help" }, help);
  if (text) control.setAttribute("aria-describedby", text.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, text);
}

/** A select element; options are [value, text], or [value, text, true] for one that cannot be chosen. */
export function select(options, value, onchange, properties = {}) {
  const element = h(
    "select",
    { ...properties, onchange: () => onchange(element.value) },
    options.map(([key, text, disabled = false]) => h("option", { value: key, disabled }, text)),
  );
  element.value = value;
  return element;
}

/** A group of buttons of which one is pressed; options are [value, text] pairs. */
export function choice(label, options, value, onchange) {
  const buttons = options.map(([key, text]) =>
    h("button", { type: "button", "aria-pressed": String(key === value), onclick: () => choose(key) }, text),
  );
  function choose(key) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(options[i][0] === key)));
    onchange(key);
  }
  return h("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}

/** A table: columns are texts, the first cell of each row is its heading. */
export function table(caption, columns, rows) {
  return h(
    "table",
    {},
    h("caption", {}, caption),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        columns.map((column) => h("th", { scope: "col" }, column)),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map(([first, ...others]) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, String(first)),
          others.map((cell) => h("td", {}, String(cell))),
        ),
      ),
    ),
  );
}

/** The text twin of a picture: a table that is built when it is opened. make() returns [caption, columns, rows]. */
export function numbers(make, name = "Numbers") {
  const body = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name });
  const details = h("details", { class: "numbers", ontoggle: () => details.refresh() }, h("summary", {}, name), body);
  details.refresh = () => {
    if (!details.open) return;
    const made = make();
    show(body, made ? table(...made) : h("p", {}, "No numbers yet."));
  };
  return details;
}

/** A section with a heading, a sentence that says what it shows, and its content. */
export function card(title, properties, ...children) {
  const { help, tools, ...others } = properties;
  const heading = h("h2", { id: `h${++unique}` }, title);
  return h(
    "section",
    { ...others, class: `card ${others.class ?? ""}`, "aria-labelledby": heading.id },
    h("header", {}, heading, tools),
    help && h("p", { class: "help" }, help),
    children,
  );
}

let liveRegion;

/** Say a sentence to screen readers. */
export function announce(text) {
  liveRegion ??= document.getElementById("announcements");
  liveRegion.textContent = text;
}

let toastTimer;

/** Show a message at the bottom of the page for a few seconds. */
export function toast(text, kind = "note") {
  if (!text) return;
  const element = document.getElementById("toast");
  element.textContent = text;
  element.dataset.kind = kind;
  element.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (element.hidden = true), kind === "error" ? 8000 : 3500);
}

/** Run f at most once per interval, with the last call always executed. interval: milliseconds, or a function of none. */
export function throttle(f, interval) {
  const milliseconds = () => (typeof interval === "function" ? interval() : interval);
  let timer = null;
  let last = -Infinity;
  return () => {
    if (timer !== null) return;
    const wait = Math.max(0, last + milliseconds() - performance.now());
    timer = setTimeout(() => {
      timer = null;
      last = performance.now();
      f();
    }, wait);
  };
}
