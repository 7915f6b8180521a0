// Human-readable numbers.

const UNITS = ["B", "KB", "MB", "GB", "TB"];

/** 5368709120 as "5.0 GB"; "" if not a valid size. */
export function bytes(count) {
  if (!Number.isFinite(count) || count < 0) return "";
  const power = Math.min(Math.floor(Math.log2(count || 1) / 10), UNITS.length - 1);
  const value = count / 1024 ** power;
  return `${value.toFixed(power && value < 100 ? 1 : 0)} ${UNITS[power]}`;
}

/** Seconds as "42 s", "3 min 05 s" or "2 h 07 min"; "" if not a valid duration. */
export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/** Steps per second or seconds per step, whichever is larger. */
export function pace(secondsPerStep) {
  if (!Number.isFinite(secondsPerStep) || secondsPerStep <= 0) return "";
  return secondsPerStep < 1
    ? `${significant(1 / secondsPerStep, 3)} steps/s`
    : `${significant(secondsPerStep, 3)} s/step`;
}

/** A number to `digits` significant digits, without an exponent from 0.001 to 99999. */
export function significant(value, digits = 3) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e5)) return value.toExponential(digits - 1);
  const after = size ? Math.max(0, digits - 1 - Math.floor(Math.log10(size))) : 0;
  return value.toFixed(Math.min(after, 20));
}

/** 12345 as "12,345". */
export function count(number) {
  return Number.isFinite(number) ? Math.round(number).toLocaleString("en-GB") : "–";
}

/** "1 photograph", "3 photographs". */
export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}
