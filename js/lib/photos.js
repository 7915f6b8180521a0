// Parses, checks and describes the server's data on a subject's photographs.

import { plural } from "./format.js";

const isText = (value) => typeof value === "string";
const isSize = (value) =>
  Array.isArray(value) && value.length === 2 && value.every((side) => side > 0);

/** {photos, refused, notes, leftOut, error, reading} of a response; malformed entries are left out. */
export function parsePhotos(data) {
  const list = (value) => (Array.isArray(value) ? value : []);
  return {
    error: isText(data?.error) ? data.error : "",
    photos: list(data?.photos).filter((one) => isText(one?.name) && isBox(one) && isSize(one.size)),
    refused: list(data?.refused).filter((one) => isText(one?.name) && isText(one.reason)),
    notes: list(data?.notes).filter(isText),
    leftOut: list(data?.left_out).filter(isText),
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

const POLL_INTERVAL = 300; // ms
const TOO_SMALL = "it is too small"; // prefix of the server's reason
const NO_FOLDER = "There is no folder "; // prefix of the server's error

/**
 * Polls until the server has read the photographs; resolves to null if the request is outdated.
 * @param fetchPhotos async, returns the result of `parsePhotos`
 * @param isCurrent whether the request is still the latest
 * @param interval in ms
 */
export async function pollPhotos(fetchPhotos, isCurrent, interval = POLL_INTERVAL) {
  for (;;) {
    const view = await fetchPhotos();
    if (!isCurrent()) return null;
    if (!view.reading) return view;
    await new Promise((done) => setTimeout(done, interval));
    if (!isCurrent()) return null;
  }
}

/**
 * Checks captions and prompt for the token: marks photographs whose caption lacks it, in place,
 * and returns notes for the user.
 */
export function checkToken(photos, token, prompt) {
  const [word, text] = [token, prompt].map((value) => (isText(value) ? value.trim() : ""));
  markCaptions(photos, word, text);
  const prompted = photos.some(({ caption }) => !caption);
  return prompted && word && !hasToken(text, word)
    ? [`The prompt lacks the token ${word}: nothing is learned for it.`]
    : [];
}

/** The crop's rectangle within the whole photograph, in percent: {left, top, width, height}. */
export function cropRect({ box: [left, top, right, bottom], width, height }) {
  const share = (part, whole) => `${((100 * part) / whole).toFixed(3)}%`;
  return {
    left: share(left, width),
    top: share(top, height),
    width: share(right - left, width),
    height: share(bottom - top, height),
  };
}

/** Whether the crop is the whole photograph. */
export function isUncropped({ box: [left, top, right, bottom], width, height }) {
  return right - left === width && bottom - top === height;
}

/** Warnings about a photograph, as texts. */
export function warningsOf(photo) {
  return [
    photo.blurred && "looks blurry",
    isText(photo.twin) && `near-duplicate of ${photo.twin}`,
    isText(photo.missing) && `its caption lacks the token ${photo.missing}`,
  ].filter(Boolean);
}

/**
 * Sets `missing` of each photograph, in place, to the token that its caption lacks, else null. A
 * prompt that embeds {caption} may contain the token itself.
 */
export function markCaptions(photos, token, prompt = "") {
  const word = isText(token) ? token.trim() : "";
  const framed = prompt.includes("{caption}") && hasToken(prompt, word);
  for (const photo of photos) {
    const named = framed || !isText(photo.caption) || hasToken(photo.caption, word);
    photo.missing = named ? null : word;
  }
}

/** Whether a text contains the token, ignoring case like the tokenizer. */
export function hasToken(text, token) {
  return text.replaceAll("{token}", token).toLowerCase().includes(token.toLowerCase());
}

// The images that Subject reads (image_io.py), and captions.
const IMAGE =
  /\.(jpe?g?|jfif|jp[2cfx]|j2[ck]|a?png|webp|bmp|tiff?|gif|avifs?|hei[cf]s?|hif|p[bgnp]m|pfm|tga)$/i;
const CAPTION = /\.(txt|caption)$/i;

/** Whether a file is a photograph or a caption; many browsers report no MIME type for some. */
export function isPhotoOrCaption({ name, type }) {
  return type.startsWith("image/") || IMAGE.test(name) || CAPTION.test(name);
}

/** "12 other files are not copied: .npz, .json." of files' names. */
export function describeOthers(names) {
  const kinds = new Set(names.map((name) => /.(\.[^.]+)$/.exec(name)?.[1].toLowerCase() ?? name));
  const verb = names.length === 1 ? "is" : "are";
  return `${plural(names.length, "other file")} ${verb} not copied: ${[...kinds].join(", ")}.`;
}

/**
 * Groups refused files [{name, reason}, …] by reason, as [{title, files, reason}, …]: `title` is
 * the name or the count, `files` are the names.
 */
export function groupRefused(refused) {
  const byReason = new Map();
  for (const { name, reason } of refused)
    byReason.set(reason, [...(byReason.get(reason) ?? []), name]);
  return [...byReason].map(([reason, files]) => ({
    title: files.length === 1 ? files[0] : plural(files.length, "photograph"),
    files,
    reason,
  }));
}

/** Whether there are refused photographs, all of them for being too small. */
export function areTooSmall(refused) {
  return refused.length > 0 && refused.every(({ reason }) => reason.startsWith(TOO_SMALL));
}

/** Whether the server's error is that the folder does not exist. */
export function isFolderMissing(error) {
  return error.startsWith(NO_FOLDER);
}

/** "15 photographs, 2 skipped, 1 to check". */
export function summary({ photos, refused }) {
  const marked = photos.filter((photo) => warningsOf(photo).length).length;
  return [
    plural(photos.length, "photograph"),
    refused.length && `${refused.length} skipped`,
    marked && `${marked} to check`,
  ]
    .filter(Boolean)
    .join(", ");
}

/** Describes a photograph's original, cropped and trained sizes. */
export function describeSizes({ width, height, box, size, face }) {
  const [left, top, right, bottom] = box;
  const crop = `cropped to ${right - left} × ${bottom - top}${face ? " around the face" : ""}`;
  return `${width} × ${height}, ${crop}, trained at ${size[0]} × ${size[1]}`;
}
