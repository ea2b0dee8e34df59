// Changes an installed code-server so that a click becomes a prompt sooner. Usage: node hasten.mjs FOLDER
//
// FOLDER is code-server's in node_modules. Why each change is right, and what it brings, is in docs/decisions/0013. A
// change must fit exactly once: a release that looks otherwise is an error of the set-up, not a slow editor later.
import { copyFileSync, existsSync, readFileSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { dirname, extname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { constants, gzipSync, zstdCompressSync } from "node:zlib";

const changes = [
  {
    // Every browser that came would have the same 19 MB compressed for it, by the processors that start its editor.
    file: "out/server-main.js",
    from: "let a=HX(r);await new Promise(",
    to: "r=await mooringEncoded(r,n,i);let a=HX(r);await new Promise(",
    end: '\nimport{encoded as mooringEncoded}from"./encoded.js";\n',
  },
  {
    // A page that was closed or loaded again answers no question: its terminals came back after the whole four seconds.
    file: "out/vs/platform/terminal/node/ptyHostMain.js",
    from: "this._orphanQuestionBarrier=new vr(4e3)",
    to: "this._orphanQuestionBarrier=new vr(1e3)",
  },
  {
    // After the restored editors it waits for idle time, which a starting page has none of.
    file: "out/vs/code/browser/workbench/workbench.js",
    from: "ft(dTe.ID,dTe,gt.AfterRestored)",
    to: "ft(dTe.ID,dTe,gt.BlockRestore)",
  },
];
// Where the browser's own files are; those of Node are never sent.
const sent = ["out", "node_modules/@xterm", "node_modules/vscode-oniguruma", "node_modules/vscode-textmate"];
const kinds = new Set([".css", ".js", ".ttf", ".wasm"]);
// Smaller ones fit a packet or two as they are.
const smallest = 2048;
// Browsers refuse zstd whose window is above 8 MiB (RFC 9659); level 19 is the last one that stays below.
const zstd = { params: { [constants.ZSTD_c_compressionLevel]: 19 } };

// A new file, then its name: the folder may share its files with another by hard links.
function put(path, content) {
  writeFileSync(`${path}.new`, content);
  renameSync(`${path}.new`, path);
}

function changed(root, { file, from, to, end = "" }) {
  const path = join(root, file);
  const text = readFileSync(path, "utf8");
  const found = text.split(from).length - 1;
  if (found !== 1) throw new Error(`${path}: ${JSON.stringify(from)} is there ${found} times, not once; see hasten.mjs`);
  return [path, text.replace(from, () => to) + end];
}

function compress(path) {
  const content = readFileSync(path);
  if (content.length < smallest) return;
  put(`${path}.zst`, zstdCompressSync(content, zstd));
  put(`${path}.gz`, gzipSync(content, { level: 9 }));
}

const root = join(process.argv[2], "lib/vscode");
// All are looked for before any is made: an editor that is changed in part is worse than either.
for (const [path, text] of changes.map((one) => changed(root, one))) put(path, text);
copyFileSync(join(dirname(fileURLToPath(import.meta.url)), "encoded.js"), join(root, "out/encoded.js"));
for (const part of sent) {
  if (!existsSync(join(root, part))) throw new Error(`${join(root, part)} is missing; see hasten.mjs`);
  for (const entry of readdirSync(join(root, part), { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile() && kinds.has(extname(path)) && !relative(root, path).includes("/node/")) compress(path);
  }
}
