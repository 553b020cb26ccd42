// Light and dark: the choice of the system, until the person chooses.
import { h, svg } from "./dom.js";
import { emit } from "./store.js";

const KEY = "handgrad-lab-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export function applyTheme() {
  const chosen = localStorage.getItem(KEY);
  document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
  emit("theme");
}

export function toggleTheme() {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem(KEY, next);
  applyTheme();
}

export function themeButton() {
  const icon = svg(
    "svg",
    { viewBox: "0 0 16 16", class: "glyph", "aria-hidden": "true" },
    svg("circle", { cx: 8, cy: 8, r: 6 }),
    svg("path", { class: "solid", d: "M8 2a6 6 0 0 1 0 12z" }),
  );
  return h(
    "button",
    {
      type: "button",
      class: "icon",
      id: "theme",
      onclick: toggleTheme,
      title: "Light or dark (D)",
      "aria-label": "Switch between light and dark",
    },
    icon,
  );
}

system.addEventListener("change", applyTheme);
