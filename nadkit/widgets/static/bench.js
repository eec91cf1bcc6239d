// Switches of units, and what the classes score as they are.
const WIDE = 130;

/** A bar or a dot with its interval, from 0 to 1; `before` is a tick where the whole network is. */
function scale(value, before, low, high) {
  const svg = h("svg:svg", { width: WIDE + 8, height: 18, "aria-hidden": "true", class: "nadkit-dots nadkit-scale" },
    h("svg:rect", { x: 4, y: 4, width: WIDE, height: 10, class: "nadkit-trough" }));
  const x = (share) => 4 + WIDE * share;
  if (low === undefined) svg.append(h("svg:rect", { x: 4, y: 4, width: WIDE * value, height: 10, class: "nadkit-bar" }));
  else svg.append(h("svg:line", { x1: x(low), x2: x(high), y1: 9, y2: 9, class: "nadkit-interval" }), h("svg:circle", { cx: x(value), cy: 9, r: 4, class: "nadkit-dot nadkit-is-kept" }));
  svg.append(h("svg:line", { x1: x(before), x2: x(before), y1: 0, y2: 18, class: "nadkit-before" }));
  return svg;
}

export default panel((body, act) => {
  const pictures = dropdown("Pictures of", "pictures_of", (name) => act("pictures_of", name));
  const presets = choices("all units at once", "preset", (name) => act("preset", name));
  const bank = h("div", { class: "nadkit-bank", role: "group", "aria-label": "units, pressed: open; arrow keys go from one to the next" });
  const closed = h("p", {}), sentence = h("p", { class: "nadkit-sentence", role: "status" }), table = h("div", { class: "nadkit-scroll" });
  body.append(h("div", { class: "nadkit-row" }, pictures.root, presets.root), bank, closed, sentence, table);
  let buttons = [], open = [], at = 0, drawn = "";
  const paint = () => buttons.forEach((node, i) => {
    set(node, "aria-pressed", String(open[i]));
    node.classList.toggle("nadkit-shut", !open[i]);
  });
  const flip = (i) => {
    open[i] = !open[i];
    at = i;
    paint();
    rove(buttons, buttons[at]);
    // What is closed of all switches, not which one was pressed: a wish that was overtaken is in the next.
    act("switches", buttons.filter((_, j) => !open[j]).map((node) => node.dataset.unit));
  };
  bank.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const next = step ? at + step : { Home: 0, End: buttons.length - 1 }[event.key];
    if (next === undefined || !buttons[next]) return;
    event.preventDefault();
    at = next;
    rove(buttons, buttons[at]);
    buttons[at].focus();
  });
  return (state) => {
    pictures.update(state.classes, state.pictures_of);
    presets.update(state.presets, state.preset);
    const now = JSON.stringify(state.switches.map(([name]) => name));
    if (now !== drawn) {
      buttons = state.switches.map(([name, words], i) => button(name, () => flip(i), { "data-unit": name, "data-key": `switch-${name}`, title: words }));
      bank.replaceChildren(...buttons);
      rove(buttons, buttons[0]);
      drawn = now;
    }
    // A hand that is still switching is ahead of the answer.
    if (!act.busy()) open = state.switches.map(([, , isOpen]) => isOpen);
    paint();
    text(closed, state.closed_words);
    if (state.stale && !state.rows.length) return;
    text(sentence, state.sentence ?? "");
    table.replaceChildren(h("table", { class: "nadkit-table" }, h("caption", {}, "What the pictures score now; the thin mark is the whole network"),
      h("thead", {}, h("tr", {}, ["class", "mean probability", "", "answered [95 %]", ""].map((head) => head ? h("th", { scope: "col" }, head) : h("td", {})))),
      h("tbody", {}, state.rows.map(([name, mean, meanBefore, share, low, high, shareBefore]) => h("tr", {}, h("th", { scope: "row", class: name === state.pictures_of ? "nadkit-strong" : null }, name),
        h("td", {}, scale(mean, meanBefore)), h("td", {}, mean.toFixed(2)), h("td", {}, scale(share, shareBefore, low, high)), h("td", {}, `${share.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`))))));
  };
});
