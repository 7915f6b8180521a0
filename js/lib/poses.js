// Poses: which are chosen by a widget's text, and their drawing as lines and dots.

/** Names that a text chooses among `names`; `all` is the text for all of them. */
export function chosenOf(text, names, all) {
  if (String(text).trim() === all) return new Set(names);
  const wanted = String(text)
    .split(",")
    .map((name) => name.trim());
  return new Set(names.filter((name) => wanted.includes(name)));
}

/** The text of a choice. */
export function textOf(chosen, names, all) {
  return chosen.size === names.length ? all : names.filter((name) => chosen.has(name)).join(", ");
}

/** The choice with a name added or taken away; the last one stays, because one is needed. */
export function toggled(chosen, name) {
  const next = new Set(chosen);
  if (!next.delete(name)) next.add(name);
  return next.size ? next : chosen;
}

/**
 * A pose's limbs and joints on a canvas of 100 pixels' height:
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

/** For each pose the columns that the seed gave it: {pose: [column, ...]}. */
export function columnsOf(poseOfColumn) {
  const found = {};
  for (const [column, pose] of Object.entries(poseOfColumn ?? {}))
    (found[pose] ??= []).push(column);
  return found;
}
