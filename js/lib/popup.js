// A small box above everything, that goes at Esc and at a click elsewhere.

import { button, h } from "./dom.js";

const EDGE = 8; // pixels that stay free around it

/**
 * Opens a box at a place of the window. It is in the dialog that `from` is in, which lets nothing
 * outside of it be clicked. The keyboard's focus goes into it, and back when it is closed.
 * @returns {element, close}
 */
export function openPopup(content, { x, y, from, ...attributes }) {
  const before = document.activeElement;
  // Not "auto": letting go of the right button would close what pressing it has opened.
  const rest = { popover: "manual", tabindex: "-1", ...attributes };
  const element = h("div", { class: "likeness lk-popup", ...rest }, content);
  const outside = ({ target }) => element.contains(target) || close();
  const close = () => {
    removeEventListener("pointerdown", outside, { capture: true });
    const focused = element.contains(document.activeElement);
    element.remove();
    if (focused) before?.focus({ preventScroll: true });
  };
  addEventListener("pointerdown", outside, { capture: true });
  element.addEventListener("keydown", (event) => {
    event.stopPropagation(); // not the viewer's, nor ComfyUI's
    if (event.key !== "Escape") return;
    event.preventDefault();
    close();
  });
  (from.closest("dialog") ?? document.body).append(element);
  element.showPopover();
  const within = (at, size, length) => Math.max(EDGE, Math.min(at, length - size - EDGE));
  element.style.left = `${within(x, element.offsetWidth, innerWidth)}px`;
  element.style.top = `${within(y, element.offsetHeight, innerHeight)}px`;
  (element.querySelector("button:enabled, input") ?? element).focus();
  return { element, close };
}

/** Opens a menu: `items` are what `button` takes, and `disabled`. */
export function openMenu(items, label, place) {
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
  const box = openPopup(buttons, { ...place, role: "menu", "aria-label": label });
  box.element.addEventListener("keydown", ({ key }) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[key];
    const free = buttons.filter((one) => !one.disabled);
    const at = free.indexOf(document.activeElement);
    if (step && free.length) free.at((at + step) % free.length).focus();
  });
}
