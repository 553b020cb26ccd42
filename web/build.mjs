// Build the page of handgrad lab: bundle web/src and web/style.css into src/handgrad/lab/static.
import { copyFile, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "../src/handgrad/lab/static");

const options = {
  entryPoints: { lab: join(here, "src/main.js") },
  outdir: out,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  charset: "utf8",
  legalComments: "none",
  logLevel: "info",
};

await mkdir(out, { recursive: true });
if (process.argv.includes("--watch")) {
  const context = await esbuild.context(options);
  await context.watch();
} else {
  await esbuild.build(options);
}
// The licence of uPlot is not in a comment of its source, so it is copied.
await copyFile(join(here, "node_modules/uplot/LICENSE"), join(out, "uPlot.LICENSE.txt"));
await copyFile(join(here, "index.html"), join(out, "index.html")); // last: make reads its time
