// Chart of a run's loss, smoothed over raw; prior loss and learning rate can be switched on.

import { extent, linePath, nearest, scale, ticks } from "./chart.js";
import { h, setText, svg } from "./dom.js";
import { count, significant } from "./format.js";
import { smooth, smoothingSpan } from "./series.js";

const LEFT = 40;
const RIGHT = 8;
const TOP = 6;
const BOTTOM = 18;

const LINES = [
  { key: "loss", label: "loss", colour: "--lk-accent", shown: true },
  { key: "prior", label: "prior loss", colour: "--lk-second", shown: false },
  { key: "rate", label: "learning rate", colour: "--lk-muted", shown: false },
];

/** Has `element` and `update(series, validation, total)`. */
export class LossChart {
  #series = { points: [] };
  #validation = [];
  #total = 0;
  #size = [0, 0];
  #frame = 0;
  #hovered = -1;
  #lines = LINES.map((line) => ({ ...line }));
  #smoothed = { loss: [], prior: [], rate: [] };

  constructor() {
    this.at = h("span", { class: "lk-at" });
    this.plot = svg("svg", { role: "img", "aria-label": "Loss by step" });
    this.area = h("div", { class: "lk-plot" }, this.plot);
    this.legend = h(
      "div",
      { class: "lk-legend" },
      this.#lines.map((line) => this.#toggle(line)),
      this.at,
    );
    this.element = h("div", { class: "lk-chart" }, this.legend, this.area);
    this.area.addEventListener("pointermove", (event) => this.#hover(event));
    this.area.addEventListener("pointerleave", () => this.#hover(null));
    new ResizeObserver(([entry]) => {
      this.#size = [entry.contentRect.width, entry.contentRect.height];
      this.#draw();
    }).observe(this.area);
  }

  update(series, validation, total) {
    this.#series = series;
    this.#validation = validation;
    this.#total = total;
    const span = smoothingSpan(series.points.length);
    const values = (key) => series.points.map((point) => point[key]);
    this.#smoothed = {
      loss: smooth(values("loss"), span),
      prior: smooth(values("prior"), span),
      rate: values("rate"),
    };
    const [, prior] = this.#lines;
    prior.button.hidden = !values("prior").some(Number.isFinite);
    // There may be fewer points than before: long series are thinned, resumed runs rewind.
    this.#hovered = Math.min(this.#hovered, this.#series.points.length - 1);
    this.#draw();
  }

  #toggle(line) {
    line.value = h("span");
    line.button = h(
      "button",
      {
        type: "button",
        "aria-pressed": String(line.shown),
        style: { "--lk-colour": `var(${line.colour})` },
        on: {
          click: () => {
            line.shown = !line.shown;
            line.button.setAttribute("aria-pressed", String(line.shown));
            this.#draw();
          },
        },
      },
      h("span", { class: "lk-key" }),
      h("span", {}, line.label),
      line.value,
    );
    return line.button;
  }

  #hover(event) {
    const { points } = this.#series;
    if (event === null || !points.length) {
      this.#hovered = -1;
    } else {
      // The canvas may be zoomed, so the box's size on screen differs from `#size`.
      const box = this.area.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * this.#size[0];
      const toStep = scale([LEFT, this.#size[0] - RIGHT], this.#steps());
      this.#hovered = nearest(
        points.map((point) => point.step),
        toStep(x),
      );
    }
    this.#draw();
  }

  #steps() {
    return [1, Math.max(this.#total, this.#series.points.at(-1)?.step ?? 0, 2)];
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#render());
  }

  #render() {
    const [width, height] = this.#size;
    const { points } = this.#series;
    if (width < LEFT + 20 || height < TOP + BOTTOM + 10) return;
    this.#updateLegend();
    const xs = points.map((point) => point.step);
    const toX = scale(this.#steps(), [LEFT, width - RIGHT]);
    const range = this.#range();
    const toY = scale(range, [height - BOTTOM, TOP]);
    this.plot.replaceChildren(
      ...this.#axes(range, toX, toY),
      ...this.#paths(xs, toX, toY),
      ...this.#validation.map(({ step, loss }) =>
        svg("circle", { class: "lk-validation", r: 3, cx: toX(step), cy: toY(loss) }),
      ),
      ...this.#cursor(toX),
    );
  }

  #range() {
    const shown = this.#lines
      .filter((line) => line.shown && line.key !== "rate")
      .map((line) => line.key);
    const raw = this.#series.points.map((point) => point.loss);
    const values = shown.flatMap((key) => (key === "loss" ? raw : this.#smoothed[key]));
    return extent([...values, ...this.#validation.map((value) => value.loss)]) ?? [0, 1];
  }

  #axes(range, toX, toY) {
    const [width, height] = this.#size;
    const yTicks = ticks(...range, Math.max(3, Math.floor(height / 30)));
    const xTicks = ticks(0, this.#steps()[1], Math.max(2, Math.floor(width / 90))).filter(
      (step) => step > 0,
    );
    const digits =
      yTicks.length > 1 ? Math.max(0, Math.ceil(-Math.log10(yTicks[1] - yTicks[0]) - 1e-9)) : 2;
    return [
      ...yTicks.map((value) =>
        svg("line", {
          class: "lk-gridline",
          x1: LEFT,
          x2: width - RIGHT,
          y1: toY(value),
          y2: toY(value),
        }),
      ),
      ...yTicks.map((value) =>
        svg(
          "text",
          { x: LEFT - 6, y: toY(value) + 3, "text-anchor": "end" },
          value.toFixed(Math.min(digits, 6)),
        ),
      ),
      ...xTicks.map((step) => {
        const atEnd = toX(step) > width - 24;
        return svg(
          "text",
          { x: toX(step), y: height - 4, "text-anchor": atEnd ? "end" : "middle" },
          count(step),
        );
      }),
    ];
  }

  #paths(xs, toX, toY) {
    const [, height] = this.#size;
    const [loss, prior, rate] = this.#lines;
    const path = (name, ys, y) => svg("path", { class: `lk-${name}`, d: linePath(xs, ys, toX, y) });
    const raw = this.#series.points.map((point) => point.loss);
    const rates = this.#smoothed.rate.filter(Number.isFinite);
    const toRate = scale([0, Math.max(...rates, Number.MIN_VALUE)], [height - BOTTOM, TOP + 4]);
    const inside = (value) => Math.max(TOP, Math.min(height - BOTTOM, toY(value)));
    return [
      loss.shown && path("raw", raw, inside),
      rate.shown && path("rate", this.#smoothed.rate, toRate),
      prior.shown && path("prior", this.#smoothed.prior, inside),
      loss.shown && path("loss", this.#smoothed.loss, inside),
    ].filter(Boolean);
  }

  #cursor(toX) {
    const point = this.#series.points[this.#hovered];
    if (!point) return [];
    const [, height] = this.#size;
    const x = toX(point.step);
    return [svg("line", { class: "lk-cursor", x1: x, x2: x, y1: TOP, y2: height - BOTTOM })];
  }

  #updateLegend() {
    const { points } = this.#series;
    const index = this.#hovered >= 0 ? this.#hovered : points.length - 1;
    for (const line of this.#lines) {
      const value = this.#smoothed[line.key][index];
      setText(line.value, Number.isFinite(value) ? significant(value, 3) : "");
    }
    setText(this.at, this.#hovered >= 0 ? `step ${count(points[index].step)}` : "");
  }
}
