import { Parser } from "@asyncapi/parser";
import { readFileSync } from "node:fs";

const parser = new Parser();
let failed = false;
for (const file of process.argv.slice(2)) {
  const problems = (await parser.validate(readFileSync(file, "utf8"))).filter((p) => p.severity === 0);
  for (const p of problems) console.log(`${file}: ${p.path.join(".")}: ${p.message}`);
  if (problems.length) failed = true;
  else console.log(`${file}: valid`);
}
process.exit(failed ? 1 : 0);
