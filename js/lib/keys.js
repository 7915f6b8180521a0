// ComfyUI has shortcuts of its own on the whole page.

/**
 * Keeps keys that an element of ours understands from ComfyUI. With `letters` false its shortcuts
 * of a single letter, such as R, work there, too.
 */
export function keepKeys(element, { letters = true } = {}) {
  const ours = "button, input, select, textarea, dialog, [tabindex]";
  element.addEventListener("keydown", (event) => {
    const spared = !letters && /^[a-z]$/i.test(event.key) && !event.target.closest(TEXT);
    if (event.target.closest(ours) && !spared && !event.ctrlKey && !event.metaKey)
      event.stopPropagation();
  });
}

const TEXT = "input, select, textarea, dialog";
