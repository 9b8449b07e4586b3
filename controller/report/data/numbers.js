// Owns: numbers and times in words. Must not know: where they come from.

const LEVELS = ["healthy", "warning", "collapsed"];

function worded(value, unit = "") {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (unit === "share") return percent(value);
  const size = Math.abs(value);
  let text;
  if (size === 0) text = "0";
  else if (size >= 1e9) text = `${short(value / 1e9)}G`;
  else if (size >= 1e6) text = `${short(value / 1e6)}M`;
  else if (size >= 1e4) text = `${short(value / 1e3)}k`;
  else if (size < 1e-3) text = value.toExponential(1).replace("e-", "e−");
  else text = short(value);
  return text.replace(/^-/, "−");
}

function short(value) {
  return String(Number(value.toPrecision(3)));
}

function percent(value) {
  if (value === null || value === undefined) return "–";
  const share = value * 100;
  return `${share !== 0 && Math.abs(share) < 1 ? Number(share.toPrecision(2)) : Number(share.toFixed(1))}%`;
}

function withUnit(value, unit) {
  return !unit || unit === "share" || value === null || value === undefined ? worded(value, unit) : `${worded(value, unit)} ${unit}`;
}

function lasting(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} days`;
}

function clock(seconds) {
  if (seconds === null || seconds === undefined) return "unknown";
  const when = new Date(seconds * 1000);
  const two = (value) => String(value).padStart(2, "0");
  return `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())} ${two(when.getHours())}:${two(when.getMinutes())}`;
}

function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

// The mean of the values within `width` steps around each, over what was measured; it keeps the gaps.
function smoothed(values, width) {
  if (width <= 1) return values;
  const half = Math.floor(width / 2);
  return values.map((value, place) => {
    if (value === null) return null;
    let sum = 0;
    let count = 0;
    for (let near = Math.max(0, place - half); near <= Math.min(values.length - 1, place + half); near += 1) {
      if (values[near] !== null) {
        sum += values[near];
        count += 1;
      }
    }
    return sum / count;
  });
}
