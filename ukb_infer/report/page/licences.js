// Writes built/LICENCES.txt: what the built script contains besides our own code, and under which licence.
import { readFileSync, writeFileSync } from "node:fs";

const { dependencies } = JSON.parse(readFileSync("package.json", "utf8"));
const parts = Object.keys(dependencies).sort().map((name) => {
  const facts = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  const text = readFileSync(`node_modules/${name}/LICENSE`, "utf8").trim();
  return `${name} ${facts.version} (${facts.license})\n\n${text}\n`;
});
writeFileSync("built/LICENCES.txt", parts.join(`\n${"-".repeat(80)}\n\n`));
