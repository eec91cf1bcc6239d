// Kept share and loss of a run, and a button that stops it.
const [LEFT, WIDE, HIGH, TOP] = [44, 300, 120, 10];

function chart(state, one) {
  const values = [one.low, one.high, one.mean].flat().filter((value) => value !== null);
  const most = one.name === "kept share" ? 1 : Math.max(...values, 1e-9), least = one.name === "kept share" ? 0 : Math.min(0, ...values);
  const x = (step) => LEFT + (WIDE * step) / Math.max(state.total, 1), y = (value) => TOP + HIGH * (1 - (value - least) / (most - least));
  const path = (line) => line.map((value, at) => value === null ? "" : `${at && line[at - 1] !== null ? "L" : "M"}${x(state.steps[at])} ${y(value)}`).join("");
  const last = one.mean.at(-1);
  const svg = h("svg:svg", { width: LEFT + WIDE + 50, height: HIGH + 50, class: "nadkit-dots", role: "img", "aria-label": `${one.name} by step: mean ${one.mean[0] ?? "none"} at first, ${last ?? "none"} now` });
  for (const tick of [least, (least + most) / 2, most]) svg.append(h("svg:line", { x1: LEFT, x2: LEFT + WIDE, y1: y(tick), y2: y(tick), class: "nadkit-rule" }), h("svg:text", { x: LEFT - 5, y: y(tick) + 4, "text-anchor": "end" }, String(Number(tick.toPrecision(2)))));
  for (const step of [0, state.total]) svg.append(h("svg:text", { x: x(step), y: TOP + HIGH + 16, "text-anchor": "middle" }, String(step)));
  svg.append(h("svg:text", { x: LEFT + WIDE / 2, y: TOP + HIGH + 32, "text-anchor": "middle" }, "step"));
  const known = one.mean.map((value, at) => [state.steps[at], one.low[at], one.high[at]]).filter((spot) => spot[1] !== null);
  if (known.length > 1) svg.append(h("svg:path", { class: "nadkit-band", d: `M${known.map(([at, low]) => `${x(at)} ${y(low)}`).join("L")}L${known.reverse().map(([at, , high]) => `${x(at)} ${y(high)}`).join("L")}Z` }));
  for (const line of Object.values(one.lines)) svg.append(h("svg:path", { d: path(line), class: "nadkit-line nadkit-thin" }));
  svg.append(h("svg:path", { d: path(one.mean), class: "nadkit-line nadkit-is-kept nadkit-bold" }));
  if (last !== null && last !== undefined) svg.append(h("svg:circle", { cx: x(state.steps.at(-1)), cy: y(last), r: 4, class: "nadkit-dot nadkit-is-kept" }), h("svg:text", { x: x(state.steps.at(-1)) + 8, y: y(last) - 4 }, String(Number(last.toPrecision(2)))));
  return h("figure", {}, h("figcaption", {}, h("strong", {}, one.name), Object.keys(one.lines).length ? ": mean (bold) and each task" : ""), svg);
}

export default panel((body, act, model) => {
  const stop = button("Stop", () => { act("stop", state_.run); text(stop, "Stopping …"); }, { "data-key": "stop" });
  const sentence = h("p", { class: "nadkit-sentence", role: "status" }), hint = h("p", { class: "nadkit-error", role: "alert", hidden: true });
  const charts = h("div", { class: "nadkit-gallery" }), last = h("details", {}, h("summary", { tabindex: 0 }, "last report, task by task")), table = h("div", {});
  last.append(table);
  body.append(h("div", { class: "nadkit-row" }, stop, sentence), hint, charts, last);
  let state_ = {}, seen = -1;
  return (state) => {
    state_ = state;
    stop.disabled = !state.running || state.stopped;
    if (!act.busy() || state.stopped || !state.running) text(stop, state.stopped && state.running ? "Stopping …" : "Stop");
    text(sentence, state.sentence);
    hint.hidden = !state.hint;
    text(hint, state.hint);
    charts.replaceChildren(...(state.steps.length ? state.charts.map((one) => chart(state, one)) : []));
    last.hidden = !state.rows.length;
    table.replaceChildren(h("table", { class: "nadkit-table" }, h("thead", {}, h("tr", {}, ["task", "kept share", "loss"].map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, state.rows.map(([task, share, loss]) => h("tr", {}, h("th", { scope: "row" }, task), h("td", {}, share.toFixed(3)), h("td", {}, loss === null ? "no value" : String(loss)))))));
    // A sign to Python that messages arrive; it needs no answer.
    if (state.seen !== seen && state.running) { seen = state.seen; model.send({ do: "seen", value: seen }); }
  };
});
