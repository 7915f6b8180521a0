// A small popup on top of everything, closed by Esc or a click outside.

import { button, h, setVisible } from "./dom.js";

const EDGE = 8; // minimum distance to the window's edges, in pixels
const FILTERED = 12; // items of a menu above which it can be filtered

/**
 * Opens a popup at x, y in the window. It is put into the dialog around `anchor`, if any, as
 * nothing outside a modal dialog can be clicked. It takes the focus and restores it on closing.
 * @returns {element, close}
 */
export function openPopup(content, { x, y, anchor, ...attributes }) {
  const previousFocus = document.activeElement;
  // Not "auto": releasing the right button would close the popup that pressing it opened.
  const rest = { popover: "manual", tabindex: "-1", ...attributes };
  const element = h("div", { class: "likeness lk-popup", ...rest }, content);
  const outside = ({ target }) => element.contains(target) || close();
  const close = () => {
    removeEventListener("pointerdown", outside, { capture: true });
    const focused = element.contains(document.activeElement);
    element.remove();
    if (focused) previousFocus?.focus({ preventScroll: true });
  };
  addEventListener("pointerdown", outside, { capture: true });
  element.addEventListener("keydown", (event) => {
    event.stopPropagation(); // neither for the viewer nor for ComfyUI
    if (event.key !== "Escape" || event.isComposing) return;
    event.preventDefault();
    close();
  });
  (anchor.closest("dialog") ?? document.body).append(element);
  element.showPopover();
  const within = (at, size, length) => Math.max(EDGE, Math.min(at, length - size - EDGE));
  element.style.left = `${within(x, element.offsetWidth, innerWidth)}px`;
  element.style.top = `${within(y, element.offsetHeight, innerHeight)}px`;
  (element.querySelector("button:enabled, input") ?? element).focus();
  return { element, close };
}

/**
 * Opens a menu; each item has the options of `button`, and optionally `disabled`. With `filter`, a
 * long one has a box to filter its items by words; `filter` is the box's name.
 */
export function openMenu(items, label, place, { filter = null } = {}) {
  const choose = (click) => () => {
    box.close();
    click();
  };
  const buttons = items.map(({ disabled = false, click, ...item }) => {
    const one = button({ ...item, kind: "plain", click: choose(click) });
    one.setAttribute("role", "menuitem");
    one.disabled = disabled;
    return one;
  });
  const enabled = () => buttons.filter((one) => !one.disabled && !one.hidden);
  const menu = h("div", { class: "lk-menu", role: "menu", "aria-label": label }, buttons);
  const search = filter && items.length > FILTERED ? filterBox(filter, items, buttons) : [];
  const box = openPopup([...search, menu], place);
  box.element.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // the key belongs to an input method
    const at = enabled().indexOf(document.activeElement);
    const next = { ArrowDown: at + 1, ArrowUp: at < 0 ? -1 : at - 1 }[event.key];
    const isChosen = event.key === "Enter" && search.includes(event.target);
    if ((next === undefined && !isChosen) || !enabled().length) return;
    event.preventDefault(); // neither scrolls, nor clicks what gets the focus
    if (isChosen) return enabled()[0].click();
    enabled().at(next % enabled().length).focus();
  });
}

/** A box that hides the menu's buttons whose text lacks a word of it, and a line if all do. */
function filterBox(label, items, buttons) {
  const none = h("p", { class: "lk-muted", role: "status", hidden: true }, "Nothing matches.");
  const search = h("input", { type: "search", placeholder: label, "aria-label": label });
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/);
    const isWanted = ({ text }) => words.every((word) => text.toLowerCase().includes(word));
    items.forEach((item, n) => setVisible(buttons[n], isWanted(item)));
    setVisible(none, !items.some(isWanted));
  });
  return [search, none];
}
