// Stand-ins for ComfyUI's own modules: `app` and `api` of the page are those given here.

import { register } from "node:module";

const RESOLVE = `
export async function resolve(specifier, context, next) {
  const name = /scripts\\/(api|app)\\.js$/.exec(specifier)?.[1];
  if (!name) return next(specifier, context);
  const code = "export const " + name + " = globalThis.comfy." + name;
  return { url: "data:text/javascript," + encodeURIComponent(code), shortCircuit: true };
}`;

/** A module of js/ that uses them. Each test file may ask once: modules are loaded once. */
export async function load(path, { api, app }) {
  globalThis.comfy = { api, app };
  register(`data:text/javascript,${encodeURIComponent(RESOLVE)}`);
  return import(new URL(`../../js/${path}`, import.meta.url));
}
