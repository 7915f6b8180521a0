// ComfyUI has shortcuts of its own on the whole page.

/** Keeps keys that an element of ours understands from ComfyUI. */
export function keepKeys(element) {
  const ours = "button, input, select, textarea, dialog, [tabindex]";
  element.addEventListener("keydown", (event) => {
    if (event.target.closest(ours) && !event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
}
