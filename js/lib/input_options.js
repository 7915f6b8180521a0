// The choices of a node's input, as the server lists them now.

/** The options of a combo in the server's answer to /object_info/<node>; throws an Error. */
export function parseOptions(answer, node, input) {
  const [kind, options] = answer?.[node]?.input?.required?.[input] ?? [];
  const listed = Array.isArray(kind) ? kind : options?.options;
  if (!Array.isArray(listed)) throw new Error(`ComfyUI does not know ${input} of ${node}.`);
  return listed.filter((name) => typeof name === "string");
}
