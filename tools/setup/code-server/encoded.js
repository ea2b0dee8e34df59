// Put beside code-server's server by hasten.mjs: which form of a static file a browser is sent.
import { access } from "node:fs/promises";

const forms = [["zstd", ".zst"], ["gzip", ".gz"]];

// The path to send for `path`: a form that was compressed at set-up, if there is one that the browser takes, which the
// headers then say. A coding with q=0 is one that it does not take (RFC 9110, 12.5.3).
export async function encoded(path, request, headers) {
  const taken = String(request.headers["accept-encoding"] ?? "").toLowerCase().split(",");
  for (const [coding, suffix] of forms) {
    const word = taken.map((entry) => entry.trim()).find((entry) => entry.split(";")[0].trim() === coding);
    if (word === undefined || /;\s*q=0(\.0*)?$/.test(word)) continue;
    if (!(await access(path + suffix).then(() => true, () => false))) continue;
    headers["Content-Encoding"] = coding;
    headers["Vary"] = "Accept-Encoding";
    return path + suffix;
  }
  return path;
}
