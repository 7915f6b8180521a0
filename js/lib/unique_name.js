/** The name, numbered if needed so that it equals none of `taken`, ignoring case. */
export function uniqueName(name, taken) {
  const used = new Set([...taken].map((one) => one.toLowerCase()));
  const stem = name.replace(/ \d+$/, "");
  let found = name;
  for (let number = 2; used.has(found.toLowerCase()); number++) found = `${stem} ${number}`;
  return found;
}
