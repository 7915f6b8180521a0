// Keeps our elements' key events from triggering ComfyUI's page-wide shortcuts.

/**
 * Hides from ComfyUI the keys pressed in an element's controls. With `letters` false, its
 * single-letter shortcuts, such as R, still work, except while typing.
 */
export function blockShortcuts(element, { letters = true } = {}) {
  const ours = "button, input, select, textarea, dialog, [tabindex]";
  element.addEventListener("keydown", (event) => {
    const allowed = !letters && /^[a-z]$/i.test(event.key) && !event.target.closest(TEXT);
    if (event.target.closest(ours) && !allowed && !event.ctrlKey && !event.metaKey)
      event.stopPropagation();
  });
}

const TEXT = "input, select, textarea, dialog";
