// A name that no other has.

/** The name with the next number that none of `taken` has, on a system that ignores case. */
export function freeName(name, taken) {
  const used = new Set([...taken].map((one) => one.toLowerCase()));
  const stem = name.replace(/ \d+$/, "");
  let found = name;
  for (let number = 2; used.has(found.toLowerCase()); number++) found = `${stem} ${number}`;
  return found;
}
