// Light and dark: the choice of the system, until the person chooses.
import { h } from "./dom.js";
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
  const button = h("button", { type: "button", class: "icon", onclick: toggleTheme, title: "Light or dark (D)", "aria-label": "Switch between light and dark" }, "◐");
  return button;
}

system.addEventListener("change", applyTheme);
