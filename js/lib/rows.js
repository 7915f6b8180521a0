// The rows of a Matrix, one a line of its text, and the files that may be added.

import { parseOptions } from "./input_options.js";

/** How the text names the unmodified model. */
export const BASE = "base";

/** The names of Load Adapter's files in what the server says of the node; throws an Error. */
export function parseFiles(answer) {
  return parseOptions(answer, "Likeness_LoadAdapter", "adapter").slice(1); // the first is the base
}

/**
 * The names, newest first; those whose age is unknown come last, in their order.
 * @param lists by kind of model, lists of {name, modified} in seconds
 */
export function newestFirst(names, lists) {
  const times = new Map();
  for (const [kind, files] of Object.entries(lists))
    for (const { name, modified } of Array.isArray(files) ? files : [])
      for (const one of [name, `${kind}/${name}`]) if (!times.has(one)) times.set(one, modified);
  return [...names].sort((a, b) => (times.get(b) ?? 0) - (times.get(a) ?? 0));
}

/** Whether a line of the text has the file, at full strength, also as one of several. */
export function hasRow(text, name) {
  return linesOf(text).some((line) => readings(line).some((one) => isFile(one, name)));
}

/** Whether a line could not name the file: it would be a comment. */
export function isComment(name) {
  return name.startsWith("#");
}

/** The text with a line for the file. */
export function addRow(text, name) {
  const kept = text.replace(/\s+$/, "");
  return kept ? `${kept}\n${name}` : name;
}

function linesOf(text) {
  const lines = text.split("\n").map((line) => line.trim());
  return lines.filter((line) => line && !isComment(line));
}

/** What a line may name: all of it, or what follows the row's own name. */
function readings(line) {
  const at = line.includes(" = ") ? line.indexOf(" = ") + 2 : line.indexOf("=") + 1;
  return at ? [line, line.slice(at).trim()] : [line];
}

/** Whether the text is the file's name or a pattern, with * and ?, that matches it. */
function isFile(text, name) {
  if (name === BASE) return text.toLowerCase() === BASE;
  return text === name || (/[*?]/.test(text) && matches(text, name));
}

/** A name's folders are matched one by one; / and \ are the same. */
function matches(pattern, name) {
  const wanted = pattern.split(/[/\\]/);
  const parts = name.split(/[/\\]/);
  return wanted.length === parts.length && wanted.every((one, n) => matchesPart(one, parts[n]));
}

/** Tries the last * again only, so that no name takes long. */
function matchesPart(pattern, text) {
  let [place, at, star, starred] = [0, 0, -1, 0];
  while (place < text.length) {
    if (pattern[at] === "*") [star, starred] = [at++, place];
    else if (pattern[at] === "?" || pattern[at] === text[place]) [at, place] = [at + 1, place + 1];
    else if (star >= 0) [at, place] = [star + 1, ++starred];
    else return false;
  }
  return /^\**$/.test(pattern.slice(at));
}
