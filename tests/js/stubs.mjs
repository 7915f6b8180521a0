// Stubs for ComfyUI's modules: panels under test import the given `app` and `api`.

import { register } from "node:module";

const RESOLVE = `
export async function resolve(specifier, context, next) {
  const name = /scripts\\/(api|app)\\.js$/.exec(specifier)?.[1];
  if (!name) return next(specifier, context);
  const code = "export const " + name + " = globalThis.comfy." + name;
  return { url: "data:text/javascript," + encodeURIComponent(code), shortCircuit: true };
}`;

/** Imports a module of js/ with them. Call it once per test file, as modules are cached. */
export async function load(path, { api, app }) {
  globalThis.comfy = { api, app };
  register(`data:text/javascript,${encodeURIComponent(RESOLVE)}`);
  return import(new URL(`../../js/${path}`, import.meta.url));
}
