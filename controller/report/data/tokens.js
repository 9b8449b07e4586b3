// Owns: a reply as text: each token shaded by M, forced tokens, where the thought was ended. Must not know: turns.

const ENDED = {
  uncertainty: ["TTI", "TTI ended the thought here: its uncertainty had settled"],
  cap: ["cap", "the thought was ended here: it had reached the hard cap"],
};

function drawReply(reply, texts) {
  const box = element("div", { class: "reply" });
  if (!reply.pieces) {
    box.append(texts[reply.text]);
    return box;
  }
  let token = 0;
  reply.pieces.forEach((text, number) => {
    const count = reply.spans ? reply.spans[number] : 1;
    if (reply.fired && token <= reply.at && reply.at < token + count) box.append(endMark(reply.fired));
    box.append(...drawToken(texts[text], token, reply.m.slice(token, token + count), isForced(reply, token)));
    token += count;
  });
  return box;
}

function isForced(reply, token) {
  return Boolean(reply.fired) && token >= reply.at && token < reply.at + reply.forced;
}

function endMark(fired) {
  const [name, words] = ENDED[fired] || [fired, "the thought was ended here"];
  return element("span", { class: "ended", title: words, role: "note", "aria-label": words }, name);
}

function drawToken(text, token, values, forced) {
  const known = values.filter((value) => value >= 0);
  const broken = text.endsWith("\n") ? "\n" : ""; // the line ends behind the token's box
  const visible = text.replace(/\n/g, "↵\n").slice(0, broken ? -1 : undefined);
  const place_ = values.length > 1 ? `tokens ${token} to ${token + values.length - 1}` : `token ${token}`;
  if (forced) return [element("span", { class: "token forced", title: `${place_}, forced: not sampled, it has no M and is not trained` }, visible), broken];
  if (!known.length) return [element("span", { class: "token", title: `${place_}: M was not measured` }, visible), broken];
  const mean = known.reduce((sum, value) => sum + value, 0) / known.length / 1000;
  const said = known.map((value) => (value / 1000).toFixed(3)).join(", ");
  const span = element("span", { class: "token sampled", title: `M ${said} (${place_})`, "data-m": mean.toFixed(2) }, visible);
  span.style.setProperty("--m", mean.toFixed(3));
  return [span, broken];
}

function drawScale() {
  const steps = [0, 0.2, 0.4, 0.6, 0.8, 1].map((value) => {
    const span = element("span", { class: "token sampled" }, value.toFixed(1));
    span.style.setProperty("--m", value);
    return span;
  });
  return element(
    "p", { class: "scale" },
    "M of a token: ", steps, element("span", { class: "dim" }, " certain to uncertain "),
    element("span", { class: "token forced" }, "forced"), element("span", { class: "dim" }, " not sampled "),
    endMark("uncertainty"), element("span", { class: "dim" }, "TTI ended the thought "), endMark("cap"), element("span", { class: "dim" }, "the hard cap did"),
  );
}

// M of all sampled tokens of a trajectory in a row, turn by turn, with Φ of each turn; without tokens Φ alone.
function drawCourse(trajectory, jump, width) {
  const height = 110;
  const withTokens = trajectory.turns.every((turn) => turn.reply.m);
  const lengths = trajectory.turns.map((turn) => (withTokens ? Math.max(1, turn.reply.m.length) : 1));
  const total = lengths.reduce((sum, length) => sum + length, 0);
  const x = (at) => 30 + (at / total) * (width - 34);
  const y = (value) => 8 + (1 - value) * (height - 30);
  const svg = graphic("svg", { class: "course", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "M along the trajectory, and Φ of each turn" });
  for (const value of [0, 0.5, 1]) svg.append(graphic("line", { class: "grid", x1: 30, x2: width - 4, y1: y(value), y2: y(value) }), graphic("text", { class: "tick", x: 24, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  let at = 0;
  trajectory.turns.forEach((turn, number) => {
    const { m, phi, fired } = turn.reply;
    const end = at + lengths[number];
    const area = graphic("rect", { class: "turn-area", x: x(at), y: 2, width: x(end) - x(at), height: height - 4, onclick: () => jump(number) }, graphic("title", {}, `turn ${number + 1}: Φ ${worded(phi)}${turn.rejected.length ? `, ${counted(turn.rejected.length, "candidate")} thrown away` : ""}`));
    svg.append(area);
    if (number > 0) svg.append(graphic("line", { class: "grid", x1: x(at), x2: x(at), y1: 4, y2: height - 18 }));
    if (withTokens) {
      let pen = false;
      let path = "";
      m.forEach((value, place_) => {
        path += value < 0 ? "" : `${pen ? "L" : "M"}${x(at + place_ + 0.5).toFixed(1)} ${y(value / 1000).toFixed(1)}`;
        pen = value >= 0;
      });
      svg.append(graphic("path", { class: "m-line", d: path }));
      if (fired && turn.reply.at >= 0) svg.append(graphic("line", { class: "ended-line", x1: x(at + turn.reply.at), x2: x(at + turn.reply.at), y1: 4, y2: height - 18 }));
    }
    if (phi !== null) svg.append(graphic("line", { class: "phi-line", x1: x(at) + 1, x2: x(end) - 1, y1: y(phi), y2: y(phi) }));
    if (x(end) - x(at) > 16 || number % 5 === 0) svg.append(graphic("text", { class: "tick", x: (x(at) + x(end)) / 2, y: height - 5, "text-anchor": "middle" }, `${number + 1}${turn.rejected.length ? "*" : ""}`));
    at = end;
  });
  return svg;
}
