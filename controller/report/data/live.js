// Owns: asking the server for news, and drawing them without moving the reader. Must not know: what is drawn.

const ASK_MS = 3000;

const live = {
  tag: "",

  start(data, draw) {
    this.tag = data.tag;
    this.draw = draw;
    this.say("live");
    setTimeout(() => this.ask(), ASK_MS);
  },

  async ask() {
    try {
      const answer = await fetch("data.json", { headers: { "If-None-Match": `"${this.tag}"` }, cache: "no-store" });
      if (answer.status === 200) this.take(await answer.json());
      this.say(answer.ok || answer.status === 304 ? "live" : `the server answers ${answer.status}`);
    } catch {
      this.say("the server has ended; this is the last state");
    }
    setTimeout(() => this.ask(), ASK_MS);
  },

  take(data) {
    this.tag = data.tag;
    const held = document.activeElement;
    const { id } = held || {};
    const anchor = this.anchor();
    const marks = held && held.id === "search" ? [held.selectionStart, held.selectionEnd] : null;
    this.draw(data);
    if (id && byId(id) && document.activeElement !== byId(id)) {
      byId(id).focus({ preventScroll: true });
      if (marks) byId(id).setSelectionRange(...marks);
    }
    if (anchor) scrollBy(0, anchor.node().getBoundingClientRect().top - anchor.top);
  },

  // What stands at the top of the window: it shall stand there after the refresh, too.
  anchor() {
    const parts = [...document.querySelectorAll("section[id], .group[id], .turn[id]")].filter((part) => part.getBoundingClientRect().top <= 80 && part.getBoundingClientRect().bottom > 80);
    const last = parts.pop();
    return last && { node: () => byId(last.id) || document.body, top: last.getBoundingClientRect().top };
  },

  say(text) {
    const news = byId("news");
    if (news.textContent !== text) news.textContent = text;
    news.className = text === "live" ? "on" : "off";
  },
};
