// The Python that reproduces the run, the model as a file, the address of the page, and the gradient check.
import { getText, isAbandoned, Latest, postJson } from "./api.js";
import { card, choice, disable, h, numbers, show, toast } from "./dom.js";
import { RUNS } from "./colors.js";
import { count, number } from "./format.js";
import { on, runs, setRun, store } from "./store.js";

async function copy(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.");
  } catch {
    const range = document.createRange();
    range.selectNodeContents(element);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    toast("Press Ctrl+C to copy the selected text.");
  }
}

const KEYWORDS =
  /(#.*$)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|\b(from|import|as|for|in|if|else|elif|while|def|return|with|lambda|not|and|or|print|None|True|False)\b|\b(\d[\d_.]*(?:e[-+]?\d+)?)\b/gm;

/** Python with coloured comments, strings, keywords and numbers. */
function highlight(text) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(KEYWORDS)) {
    parts.push(text.slice(at, match.index));
    const kind = match[1] ? "comment" : match[2] ? "string" : match[3] ? "keyword" : "literal";
    parts.push(h("span", { class: kind }, match[0]));
    at = match.index + match[0].length;
  }
  parts.push(text.slice(at));
  return parts;
}

export function codeView() {
  const code = h("code", {});
  const latest = new Latest();
  const which = h("div", { class: "tools" });
  const download = h("a", { class: "button", download: "" }, "Download the model (.safetensors)");
  const link = h("code", { class: "link" });
  const run = () => runs()[store.run] ?? runs()[0];

  function update() {
    const asked = run();
    if (!asked) return;
    link.textContent = location.href;
    download.href = `/api/runs/${asked.id}/model`;
    latest.ask(async () => {
      try {
        const text = await getText(`/api/runs/${asked.id}/code`);
        if (text !== code.textContent) show(code, highlight(text));
      } catch (error) {
        if (!isAbandoned(error)) show(code, `# ${error.message}`);
      }
    });
  }

  const result = h("div", { class: "check-result", role: "status" });
  const button = h("button", { type: "button", id: "check", class: "primary", onclick: check }, "Check the gradient");
  async function check() {
    disable(button, true);
    show(result, h("p", {}, "Checking…"));
    try {
      const found = await postJson(`/api/runs/${run().id}/check`);
      show(
        result,
        h(
          "p",
          { class: found.ok ? "ok" : "bad" },
          found.ok
            ? "✓ The derived gradient agrees with the measured slope."
            : "✗ The derived gradient differs from the measured slope.",
        ),
        h(
          "p",
          {},
          `Largest relative error ${number(found.largest_relative_error)} in ${count(found.n_checked)} derivatives.`,
        ),
        perLayer(found.per_layer),
      );
    } catch (error) {
      show(result, h("p", { class: "bad" }, error.message));
    } finally {
      disable(button, false);
    }
  }

  function perLayer(layers) {
    if (!layers?.length) return null;
    return numbers(
      () => [
        "Largest relative error per layer",
        ["Layer", "Relative error"],
        layers.map((layer, i) =>
          typeof layer === "object"
            ? [layer.name ?? i, number(layer.largest_relative_error ?? layer.error)]
            : [i, number(layer)],
        ),
      ],
      "Each layer",
    );
  }

  function build() {
    show(result);
    show(
      which,
      runs().length > 1 &&
        choice(
          "Run",
          runs().map((_, i) => [i, `Run ${RUNS[i].letter}`]),
          store.run,
          setRun,
        ),
    );
    update();
  }
  on("experiment", build);

  const root = h(
    "div",
    { class: "view code-view" },
    card(
      "The same run in Python",
      {
        class: "code-card",
        tools: which,
        help: "This script trains the network on this page: the same data, seed, batches and changes of the learning rate. It ends with the same weights.",
      },
      h(
        "div",
        { class: "buttons" },
        h("button", { type: "button", id: "copy-code", onclick: () => copy(code.textContent, code) }, "Copy"),
        download,
      ),
      h("pre", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Python" }, code),
    ),
    h(
      "div",
      { class: "column" },
      card(
        "Gradient check",
        {
          class: "check-card",
          help: "handgrad derives every gradient by hand. The check changes one weight at a time by a tiny amount in both directions, measures the slope of the loss, and compares it with the derived gradient.",
        },
        button,
        result,
      ),
      card(
        "Link to these settings",
        {
          class: "link-card",
          help: "The address contains all settings. If somebody opens it while handgrad lab runs on their computer, they get the same runs.",
        },
        link,
        h(
          "div",
          { class: "buttons" },
          h("button", { type: "button", onclick: () => copy(location.href, link) }, "Copy the link"),
        ),
      ),
    ),
  );
  return { root, update };
}
