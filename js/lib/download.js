// Downloads to the user's disk.

import { h } from "./dom.js";
import { ZipWriter } from "./zip.js";

/** Downloads a URL under a filename. */
export function downloadUrl(url, name) {
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

/** Downloads a blob under a filename. */
export function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  downloadUrl(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/**
 * Packs files, one in memory at a time, and downloads the archive. Missing files are left out.
 * Returns the number of files packed.
 * @param files [{url, name}]
 * @param onProgress called with (done, total)
 * @param signal an AbortSignal
 */
export async function saveArchive(files, name, { onProgress, signal }) {
  const zip = new ZipWriter();
  const taken = new Set();
  let packed = 0;
  for (const [number, file] of files.entries()) {
    onProgress(number, files.length);
    const response = await fetch(file.url, { signal });
    if (!response.ok) continue;
    zip.add(uniqueFilename(file.name, taken), new Uint8Array(await response.arrayBuffer()));
    packed += 1;
  }
  if (packed) saveBlob(zip.finish(), name);
  return packed;
}

/** The name, with a number appended if `taken` has it, ignoring case; adds it to `taken`. */
export function uniqueFilename(name, taken) {
  const [, stem, suffix] = /^(.*?)(\.[^.]*)?$/s.exec(name);
  let found = name;
  for (let number = 2; taken.has(found.toLowerCase()); number++)
    found = `${stem}-${number}${suffix ?? ""}`;
  taken.add(found.toLowerCase());
  return found;
}
