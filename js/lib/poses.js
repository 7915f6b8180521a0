// Poses: parsing and formatting the widget's selection, and drawing them as lines and dots.

/** Set of the selected `names`; the text `all` selects every one. */
export function parseSelection(text, names, all) {
  if (String(text).trim() === all) return new Set(names);
  const wanted = String(text)
    .split(",")
    .map((name) => name.trim());
  return new Set(names.filter((name) => wanted.includes(name)));
}

/** The widget's text for a selection. */
export function formatSelection(chosen, names, all) {
  return chosen.size === names.length ? all : names.filter((name) => chosen.has(name)).join(", ");
}

/** The selection with a name added or removed; the last one stays, as at least one is needed. */
export function toggled(chosen, name) {
  const next = new Set(chosen);
  if (!next.delete(name)) next.add(name);
  return next.size ? next : chosen;
}

/**
 * A pose's limbs and joints on a canvas 100 pixels high:
 * {width, limbs: [{from, to, colour}], joints: [{at, colour}]}.
 */
export function drawingOf({ aspect, people }, limbs, colours) {
  const place = ([x, y]) => [x * aspect * 100, y * 100];
  const colour = (n) => `rgb(${colours[n].join(" ")})`;
  const drawing = { width: aspect * 100, limbs: [], joints: [] };
  for (const person of people) {
    limbs.forEach(([from, to], n) => {
      if (!person[from] || !person[to]) return;
      drawing.limbs.push({ from: place(person[from]), to: place(person[to]), colour: colour(n) });
    });
    person.forEach(
      (joint, n) => joint && drawing.joints.push({ at: place(joint), colour: colour(n) }),
    );
  }
  return drawing;
}

/** Inverts {column: pose} to {pose: [column, ...]}. */
export function columnsByPose(poseOfColumn) {
  const found = {};
  for (const [column, pose] of Object.entries(poseOfColumn ?? {}))
    (found[pose] ??= []).push(column);
  return found;
}
