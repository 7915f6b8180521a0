// What the server says of a subject's photographs, checked and put into words.

import { plural } from "./format.js";

const isText = (value) => typeof value === "string";
const isSize = (value) =>
  Array.isArray(value) && value.length === 2 && value.every((side) => side > 0);

/** {photos, refused, notes, error, reading} of an answer; what is damaged is left out. */
export function photosOf(data) {
  const list = (value) => (Array.isArray(value) ? value : []);
  return {
    error: isText(data?.error) ? data.error : "",
    photos: list(data?.photos).filter((one) => isText(one?.name) && isBox(one) && isSize(one.size)),
    refused: list(data?.refused).filter((one) => isText(one?.name) && isText(one.reason)),
    notes: list(data?.notes).filter(isText),
    reading: data?.reading === true,
  };
}

function isBox({ box, width, height }) {
  if (!Array.isArray(box) || box.length !== 4 || !box.every(Number.isFinite)) return false;
  const [left, top, right, bottom] = box;
  return (
    0 <= left && left < right && right <= width && 0 <= top && top < bottom && bottom <= height
  );
}

const PAUSE = 300; // ms
const TOO_SMALL = "it is too small"; // how the server's reason begins

/**
 * Asks until the server has read the photographs.
 * @param ask gives what `photosOf` gives
 * @param isAwaited whether anybody still waits; if not, null is given
 */
export async function readPhotos(ask, isAwaited, pause = PAUSE) {
  for (;;) {
    const view = await ask();
    if (!isAwaited()) return null;
    if (!view.reading) return view;
    await new Promise((done) => setTimeout(done, pause));
    if (!isAwaited()) return null;
  }
}

/**
 * What is wrong with the captions and the prompt for a token: marks the photographs in place, and
 * returns the notes.
 */
export function checkWords(photos, token, prompt) {
  const [word, text] = [token, prompt].map((value) => (isText(value) ? value.trim() : ""));
  markCaptions(photos, word, text);
  const prompted = photos.some(({ caption }) => !caption);
  return prompted && word && !hasToken(text, word)
    ? [`The prompt lacks the token ${word}: nothing is learned for it.`]
    : [];
}

/** Where the crop lies on the whole photograph, in percent: {left, top, width, height}. */
export function cropPlace({ box: [left, top, right, bottom], width, height }) {
  const share = (part, whole) => `${((100 * part) / whole).toFixed(3)}%`;
  return {
    left: share(left, width),
    top: share(top, height),
    width: share(right - left, width),
    height: share(bottom - top, height),
  };
}

/** Whether nothing is cut off. */
export function isWhole({ box: [left, top, right, bottom], width, height }) {
  return right - left === width && bottom - top === height;
}

/** What to look at on a photograph, a line each. */
export function marksOf(photo) {
  return [
    photo.blurred && "looks blurred",
    isText(photo.twin) && `nearly the same as ${photo.twin}`,
    isText(photo.missing) && `its caption lacks the token ${photo.missing}`,
  ].filter(Boolean);
}

/**
 * Marks the photographs whose caption does not name the subject, as `missing`, in place. A prompt
 * with {caption} may name the subject itself.
 */
export function markCaptions(photos, token, prompt = "") {
  const word = isText(token) ? token.trim() : "";
  const framed = prompt.includes("{caption}") && hasToken(prompt, word);
  for (const photo of photos) {
    const named = framed || !isText(photo.caption) || hasToken(photo.caption, word);
    photo.missing = named ? null : word;
  }
}

/** Whether a prompt or a caption names the subject, case aside as the tokenizer has it. */
export function hasToken(text, token) {
  return text.replaceAll("{token}", token).toLowerCase().includes(token.toLowerCase());
}

const READ = /\.(jpe?g|png|webp|bmp|tiff?|gif|avif|hei[cf]|txt)$/i;

/** Whether a dropped file is a photograph or its caption: many browsers know no type of HEIC. */
export function isMaterial({ name, type }) {
  return type.startsWith("image/") || READ.test(name);
}

/**
 * Refused files, those with the same reason together: [{name, reason}, …] as {title, files, reason},
 * where `title` has their number and `files` their names.
 */
export function foldRefused(refused) {
  const byReason = new Map();
  for (const { name, reason } of refused)
    byReason.set(reason, [...(byReason.get(reason) ?? []), name]);
  return [...byReason].map(([reason, files]) => ({
    title: files.length === 1 ? files[0] : plural(files.length, "photograph"),
    files,
    reason,
  }));
}

/** Whether photographs were refused, each of them for its size. */
export function areTooSmall(refused) {
  return refused.length > 0 && refused.every(({ reason }) => reason.startsWith(TOO_SMALL));
}

/** "15 photographs, 2 refused, 1 to look at". */
export function summary({ photos, refused }) {
  const marked = photos.filter((photo) => marksOf(photo).length).length;
  return [
    plural(photos.length, "photograph"),
    refused.length && `${refused.length} refused`,
    marked && `${marked} to look at`,
  ]
    .filter(Boolean)
    .join(", ");
}

/** A photograph's sizes in words. */
export function sizesOf({ width, height, box, size, face }) {
  const [left, top, right, bottom] = box;
  const crop = `cropped to ${right - left} × ${bottom - top}${face ? " around the face" : ""}`;
  return `${width} × ${height}, ${crop}, trained at ${size[0]} × ${size[1]}`;
}
