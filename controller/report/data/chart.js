// Owns: one curve as SVG, and the line at the step under the pointer, which all curves share. Must not know: metrics.

const chart = {
  all: [], // the curves on the page
  step: null,
  byPointer: false, // or by keys

  // {width, height, steps, lines: [{label, colour, raw, smooth, low, high, thin, runs}], dots, marks, unit, log, name} -> svg
  draw(options) {
    const { width, height, unit } = options;
    const area = { left: 46, right: width - 10, top: 14, bottom: height - 24 };
    const steps = options.lines.flatMap((line) => [line.steps[0], line.steps[line.steps.length - 1]]);
    const all = [...steps, ...(options.dots || []).map((dot) => dot.step)].filter((step) => step !== undefined);
    const first = Math.min(...all);
    const last = Math.max(...all);
    const log = options.log && options.lines.every((line) => [...line.raw, ...(line.low || [])].every((value) => value === null || value > 0));
    const axis = this.axis(options, log);
    const x = (step) => area.left + (last === first ? 0.5 : (step - first) / (last - first)) * (area.right - area.left);
    const y = (value) => area.bottom - ((log ? Math.log10(value) : value) - axis.low) / (axis.high - axis.low) * (area.bottom - area.top);
    const svg = graphic("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, tabindex: "0", role: "img", "aria-label": this.words(options) });
    for (const value of axis.ticks) {
      const level = y(log ? 10 ** value : value);
      svg.append(
        graphic("line", { class: "grid", x1: area.left, x2: area.right, y1: level, y2: level }),
        graphic("text", { class: "tick", x: area.left - 6, y: level + 3.5, "text-anchor": "end" }, worded(log ? 10 ** value : value, unit)),
      );
    }
    svg.append(
      graphic("text", { class: "tick", x: x(first), y: height - 4, "text-anchor": last === first ? "middle" : "start" }, `step ${first}`),
      last > first && graphic("text", { class: "tick", x: area.right, y: height - 4, "text-anchor": "end" }, String(last)),
    );
    const heads = new Map(); // signs at one step stand beside each other
    for (const mark of (options.marks || []).filter((one) => one.step >= first && one.step <= last)) {
      const small = this.isSmall(mark);
      svg.append(this.mark(mark, x(mark.step), area, small ? 0 : 9 * (heads.get(mark.step) || 0)));
      if (!small) heads.set(mark.step, (heads.get(mark.step) || 0) + 1);
    }
    for (const line of options.lines) svg.append(...this.line(line, x, y, area));
    for (const dot of options.dots || []) svg.append(this.dot(dot, x, y));
    const cross = graphic("line", { class: "cross", y1: area.top, y2: area.bottom, visibility: "hidden" });
    svg.append(cross);
    const entry = { svg, cross, x, first, last, area, options };
    this.all.push(entry);
    this.listen(entry);
    return svg;
  },

  axis(options, log) {
    const values = [
      ...options.lines.flatMap((line) => [...line.raw, ...(line.low || []), ...(line.high || []), ...(line.thin || []).flatMap((one) => one.raw)]),
      ...(options.dots || []).flatMap((dot) => [dot.low, dot.high, dot.value]),
    ].filter((value) => value !== null && value !== undefined && (!log || value > 0)).map((value) => (log ? Math.log10(value) : value));
    let low = Math.min(...values);
    let high = Math.max(...values);
    if (!log && options.unit === "share") {
      low = Math.min(0, low);
      high = Math.max(high, 0.01);
    } else if (!log && low > 0 && low < 0.5 * high) low = 0;
    if (high - low < 1e-12 * Math.max(1, Math.abs(high))) {
      low -= Math.abs(low) * 0.1 || 1;
      high += Math.abs(high) * 0.1 || 1;
    }
    const rough = (high - low) / 4;
    const power = 10 ** Math.floor(Math.log10(rough));
    const unit = [1, 2, 2.5, 5, 10].map((size) => size * power).find((size) => size >= rough * 0.999);
    const spacing = log ? Math.max(1, Math.ceil(unit)) : unit;
    const ticks = [];
    for (let value = Math.ceil(low / spacing - 1e-9) * spacing; value <= high + spacing * 1e-9; value += spacing) ticks.push(Math.abs(value) < spacing * 1e-9 ? 0 : value);
    const room = (high - low) * 0.04;
    return { low: low === 0 ? 0 : low - room, high: high + room, ticks };
  },

  line(line, x, y, area) {
    const parts = [];
    const path = (values) => {
      let text = "";
      let pen = false;
      values.forEach((value, place) => {
        text += value === null ? "" : `${pen ? "L" : "M"}${x(line.steps[place]).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = value !== null;
      });
      return text;
    };
    const style = `c${line.colour}`;
    if (line.low) {
      const there = line.steps.map((_, place) => place).filter((place) => line.low[place] !== null);
      const edge = (values, places) => places.map((place) => `${x(line.steps[place]).toFixed(1)} ${y(values[place]).toFixed(1)}`).join("L");
      if (there.length) parts.push(graphic("path", { class: `band ${style}`, d: `M${edge(line.high, there)}L${edge(line.low, there.reverse())}Z` }));
    }
    for (const one of line.thin || []) {
      const own = { ...line, steps: one.steps };
      parts.push(...this.line({ ...own, raw: one.raw, smooth: one.raw, low: null, thin: null, single: true }, x, y, area));
    }
    if (line.single) return [graphic("path", { class: `raw ${style}`, d: path(line.raw) })];
    const alone = line.raw.filter((value) => value !== null).length === 1;
    if (alone) {
      const at = line.raw.findIndex((value) => value !== null);
      parts.push(graphic("circle", { class: `point ${style}`, cx: x(line.steps[at]), cy: y(line.raw[at]), r: 3.5 }));
    }
    if (line.smooth !== line.raw && !line.low) parts.push(graphic("path", { class: `raw ${style}`, d: path(line.raw) }));
    parts.push(graphic("path", { class: `curve ${style}`, d: path(line.smooth) }));
    return parts;
  },

  dot(dot, x, y) {
    const at = x(dot.step) + (dot.aside || 0);
    return graphic(
      "g", { class: `dot c${dot.colour}` },
      graphic("title", {}, dot.title),
      dot.low !== undefined && graphic("path", { class: "range", d: `M${at} ${y(dot.low)}V${y(dot.high)}M${at - 3} ${y(dot.low)}h6M${at - 3} ${y(dot.high)}h6` }),
      graphic("circle", { cx: at, cy: y(dot.value), r: 3.5 }),
    );
  },

  // On the axis; the others go through the whole curve.
  isSmall(mark) {
    return mark.kind === "checkpoint" || mark.kind === "evaluation";
  },

  // Each kind has a shape of its own: colour is not all that tells them apart.
  mark(mark, foot, area, aside = 0) {
    const top = area.top - 7;
    const at = foot + aside;
    const shapes = {
      checkpoint: `M${at - 3} ${area.bottom + 1}h6v4h-6z`,
      evaluation: `M${at} ${area.bottom}l4 4l-4 4l-4 -4z`,
      resume: `M${at - 3} ${top - 4}l7 4l-7 4z`,
      restart: `M${at - 4} ${top}a4 4 0 1 0 4 -4`,
      health: `M${at - 4} ${top + 3}h8l-4 -8z`,
      action: `M${at} ${top - 5}l1.5 3.5h3.5l-2.8 2.4l1 3.8l-3.2 -2.2l-3.2 2.2l1 -3.8l-2.8 -2.4h3.5z`,
      warning: `M${at - 1.2} ${top - 5}h2.4v6h-2.4zM${at - 1.2} ${top + 2}h2.4v2.2h-2.4z`,
      failure: `M${at - 4} ${top - 4}l8 8M${at + 4} ${top - 4}l-8 8`,
    };
    return graphic(
      "g", { class: `mark ${mark.kind}` },
      graphic("title", {}, `step ${mark.step}: ${mark.text}`),
      !this.isSmall(mark) && !aside && graphic("line", { x1: foot, x2: foot, y1: area.top, y2: area.bottom }),
      graphic("path", { d: shapes[mark.kind] || shapes.action }),
    );
  },

  // The shape of a kind of event by itself, for the legend.
  sign(kind) {
    const area = { top: 13, bottom: 4 };
    return graphic("svg", { class: "sign", viewBox: "0 0 14 14", "aria-hidden": "true" }, this.mark({ kind, step: 0, text: "" }, 7, { ...area, top: 14, bottom: kind === "checkpoint" ? 4 : 3 }));
  },

  words(options) {
    const last = options.lines.map((line) => {
      const value = line.smooth.filter((one) => one !== null).pop();
      return `${line.label}: ${withUnit(value, options.unit)}`;
    });
    return `${options.name}, at the end ${last.join("; ")}. Arrow keys move along the steps.`;
  },

  listen(entry) {
    const { svg, x, first, last } = entry;
    const known = [...new Set(entry.options.lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * entry.options.width;
      const nearest = known.reduce((best, step) => (Math.abs(x(step) - at) < Math.abs(x(best) - at) ? step : best), known[0]);
      this.byPointer = true;
      this.point(nearest);
      tip.show(this.told(entry, nearest), event.clientX, event.clientY);
    });
    svg.addEventListener("pointerleave", () => this.leave());
    svg.addEventListener("blur", () => this.leave());
    svg.addEventListener("keydown", (event) => {
      const keys = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
      if (event.key === "Escape") return this.leave();
      if (!(event.key in keys)) return undefined;
      event.preventDefault();
      const here = this.step === null ? (keys[event.key] > 0 ? -1 : known.length) : known.indexOf(this.step);
      const next = known[Math.max(0, Math.min(known.length - 1, here + keys[event.key]))];
      this.byPointer = false;
      this.point(next);
      const box = svg.getBoundingClientRect();
      tip.show(this.told(entry, next), box.left + (x(next) / entry.options.width) * box.width, box.top + box.height / 3);
      return undefined;
    });
    entry.within = (step) => step >= first && step <= last;
  },

  point(step) {
    this.step = step;
    this.all = this.all.filter((entry) => entry.svg.isConnected);
    for (const { cross, x, within } of this.all) {
      cross.setAttribute("visibility", step !== null && within(step) ? "visible" : "hidden");
      if (step !== null && within(step)) {
        cross.setAttribute("x1", x(step));
        cross.setAttribute("x2", x(step));
      }
    }
  },

  leave() {
    this.point(null);
    tip.hide();
  },

  told(entry, step) {
    const { lines, unit, marks, dots, name } = entry.options;
    const rows = lines.map((line) => {
      const at = line.steps.indexOf(step);
      if (at < 0 || line.raw[at] === null) return null;
      const even = line.smooth !== line.raw ? ` (smoothed ${worded(line.smooth[at], unit)})` : "";
      const spread = line.low ? ` (${worded(line.low[at], unit)} to ${worded(line.high[at], unit)}, ${counted(line.runs[at], "run")})` : even;
      return element("div", {}, lines.length > 1 && element("i", { class: `key c${line.colour}` }), lines.length > 1 && `${line.label}: `, element("b", {}, withUnit(line.raw[at], unit)), spread);
    });
    const also = [...(marks || []), ...(dots || []).map((dot) => ({ step: dot.step, text: dot.title }))].filter((mark) => mark.step === step);
    return [element("div", { class: "dim" }, `${name} · step ${step}`), rows, also.slice(0, 6).map((mark) => element("div", { class: "also" }, mark.text))];
  },
};

// The small box beside the pointer.
const tip = {
  show(content, left, top) {
    const box = byId("tip");
    (byId("large").open ? byId("large") : document.body).append(box); // a dialog covers all that is not in it
    box.replaceChildren(...content.flat(9).filter(Boolean));
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.max(4, Math.min(left + 14, innerWidth - width - 8))}px`;
    box.style.top = `${top + 18 + height > innerHeight ? Math.max(4, top - height - 12) : top + 18}px`;
  },

  hide() {
    byId("tip").hidden = true;
  },
};

// What is under the pointer has changed; keys still mean the same curve.
addEventListener("scroll", () => chart.byPointer && chart.leave(), { passive: true });
