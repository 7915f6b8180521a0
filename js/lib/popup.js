// A small popup on top of everything, closed by Esc or a click outside.

import { button, h } from "./dom.js";

const EDGE = 8; // minimum distance to the window's edges, in pixels

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
    if (event.key !== "Escape") return;
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

/** Opens a menu; each item has the options of `button`, and optionally `disabled`. */
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
    const enabled = buttons.filter((one) => !one.disabled);
    const current = enabled.indexOf(document.activeElement);
    if (step && enabled.length) enabled.at((current + step) % enabled.length).focus();
  });
}
