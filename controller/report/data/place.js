// Owns: where the reader is: what is chosen, filtered and opened. It outlives a refresh; the trajectory is in the
// address too, so that it can be pointed at. Must not know: what is shown.

const place = {
  smoothing: null, // steps; null: chosen by the length of the run
  scale: "linear",
  search: "",
  each: false, // the single runs of a set, too
  marked: 0, // the run whose events are marked
  marks: {}, // kind of event -> shown or not
  run: 0,
  step: null,
  group: "all",
  kind: "all",
  outcome: "all",
  touched: false,
  trajectory: null,
  numbers: false, // M as a number beside each token
  opened: new Map(),

  isOpen(key, byDefault = false) {
    return this.opened.has(key) ? this.opened.get(key) : Boolean(byDefault);
  },

  noteOpen(key, open) {
    this.opened.set(key, open);
  },

  read(address) {
    const said = new URLSearchParams(address.replace(/^#/, ""));
    if (!said.has("trajectory")) return false;
    this.run = Number(said.get("run")) || 0;
    this.step = Number(said.get("step")) || null;
    this.trajectory = said.get("trajectory");
    return true;
  },

  write() {
    const said = new URLSearchParams({ run: this.run, step: this.step, trajectory: this.trajectory });
    history.replaceState(null, "", `#${said}`);
  },
};
