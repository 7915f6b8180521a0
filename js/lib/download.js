// Files for the user's own folder.

import { h } from "./dom.js";
import { ZipWriter } from "./zip.js";

/** Saves an address under a name. */
export function save(address, name) {
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

/** Saves a blob under a name. */
export function saveBlob(blob, name) {
  const address = URL.createObjectURL(blob);
  save(address, name);
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/**
 * Packs files, one in memory at a time, and saves the archive. Files that are gone are left out.
 * Returns how many are in it.
 * @param files [{address, name}]
 * @param told called with (done, total)
 * @param signal an AbortSignal
 */
export async function saveArchive(files, name, { told, signal }) {
  const zip = new ZipWriter();
  const taken = new Set();
  let packed = 0;
  for (const [number, file] of files.entries()) {
    told(number, files.length);
    const answer = await fetch(file.address, { signal });
    if (!answer.ok) continue;
    zip.add(unique(file.name, taken), new Uint8Array(await answer.arrayBuffer()));
    packed += 1;
  }
  if (packed) saveBlob(zip.finish(), name);
  return packed;
}

/** The name, or with a number where another file has it on a system that ignores case. */
export function unique(name, taken) {
  const [, stem, suffix] = /^(.*?)(\.[^.]*)?$/s.exec(name);
  let found = name;
  for (let number = 2; taken.has(found.toLowerCase()); number++)
    found = `${stem}-${number}${suffix ?? ""}`;
  taken.add(found.toLowerCase());
  return found;
}
