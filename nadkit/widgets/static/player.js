// A mosaic on its way through the layers: its energy over the picture, and the hit rate of every condition.
const [LEFT, STEP, HIGH, SIZE] = [34, 46, 150, 224];
// Shape and dash tell conditions apart as well as colour does.
const LINES = {
  kept: { d: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0", dash: null }, other: { d: "M0 -5.5L5 4H-5Z", dash: "7 3" },
  random: { d: "M0 -5.5L5.5 0L0 5.5L-5.5 0Z", dash: "2 3" }, whole: { d: "M-4 -4H4V4H-4Z", dash: "9 3 2 3" },
};

export default panel((body, act) => {
  let state_ = {};
  const condition = choices("whose energy is shown", "condition", (name) => act("condition", name));
  const mosaic = numberField("Mosaic", "mosaic", (value) => act("mosaic", value));
  const id = newId("layer"), shown = h("output", { for: id });
  const go = (at) => {
    slider.value = at;
    text(shown, state_.layers[slider.value]);
    set(slider, "aria-valuetext", state_.layers[slider.value]);
    act("layer", state_.layers[slider.value]);
  };
  const slider = h("input", { id, type: "range", min: 0, step: 1, "data-key": "layer", oninput: () => go(Number(slider.value)) });
  const turn = (by, sign, words) => button(sign, () => go(Number(slider.value) + by), { "aria-label": words, "data-key": `layer${sign}` });
  const layer = h("div", { class: "nadkit-field" }, h("label", { for: id }, "Layer"), h("span", { class: "nadkit-slider" }, turn(-1, "‹", "previous layer"), slider, turn(1, "›", "next layer"), shown));
  const pictures = h("div", { class: "nadkit-gallery" }), plot = h("div", { class: "nadkit-scroll" });
  const sentence = h("p", { class: "nadkit-sentence", role: "status" });
  body.append(h("div", { class: "nadkit-row" }, mosaic.root, layer, condition.root), sentence, h("div", { class: "nadkit-columns" }, pictures, plot));

  const course = (state) => {
    const wide = STEP * state.layers.length, x = (at) => LEFT + STEP * (at + 0.5), y = (value) => 10 + HIGH * (1 - value);
    const svg = h("svg:svg", { width: LEFT + wide + 90, height: HIGH + 86, role: "img", class: "nadkit-dots nadkit-courses", "aria-label": `share of the energy in the quadrant over layers; ${state.sentence}` });
    for (const tick of [0, 0.5, 1]) svg.append(h("svg:line", { x1: LEFT, x2: LEFT + wide, y1: y(tick), y2: y(tick), class: "nadkit-rule" }), h("svg:text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
    svg.append(h("svg:line", { x1: LEFT, x2: LEFT + wide, y1: y(state.chance), y2: y(state.chance), class: "nadkit-chance" }), h("svg:text", { x: LEFT + wide + 4, y: y(state.chance) + 4 }, `chance ${state.chance}`));
    const now = state.layers.indexOf(state.layer);
    svg.append(h("svg:rect", { x: x(now) - STEP / 2, y: 4, width: STEP, height: HIGH + 12, class: "nadkit-now" }));
    state.layers.forEach((name, at) => svg.append(h("svg:text", { transform: `translate(${x(at) + 4} ${HIGH + 26}) rotate(-35)`, "text-anchor": "end", class: at === now ? "nadkit-strong" : null }, name.length > 12 ? `…${name.slice(-11)}` : name)));
    for (const [name, values] of Object.entries(state.lines)) {
      const spots = values.map((value, at) => value === null ? null : [x(at), y(value)]);
      // A layer without a value leaves a gap.
      const path = spots.map((spot, at) => spot ? `${spots[at - 1] ? "L" : "M"}${spot}` : "").join("");
      const chosen = name === state.condition ? " nadkit-bold" : "";
      svg.append(h("svg:path", { d: path, class: `nadkit-line nadkit-is-${name}${chosen}`, "stroke-dasharray": LINES[name].dash }),
        ...spots.filter(Boolean).map(([a, b]) => h("svg:path", { d: LINES[name].d, transform: `translate(${a} ${b})`, class: `nadkit-dot nadkit-is-${name}` })));
    }
    let at = LEFT;
    for (const name of Object.keys(state.lines)) {
      svg.append(h("svg:path", { d: LINES[name].d, transform: `translate(${at + 6} ${HIGH + 78})`, class: `nadkit-dot nadkit-is-${name}` }), h("svg:text", { x: at + 15, y: HIGH + 82 }, name));
      at += 34 + 7 * name.length;
    }
    return svg;
  };

  return (state) => {
    state_ = state;
    condition.update(state.conditions.map((name) => [name, name]), state.condition);
    if (!act.busy()) {
      mosaic.update(state.mosaic, state.count - 1);
      set(slider, "max", state.layers.length - 1);
      slider.value = state.layers.indexOf(state.layer);
      text(shown, state.layer);
      set(slider, "aria-valuetext", state.layer);
    }
    if (!state.picture) return;
    const over = picture(state.picture, SIZE);
    if (state.map) {
      const energy = heat(state.map, state.map_alt, SIZE);
      energy.classList.add("nadkit-over");
      over.insertBefore(energy, over.lastChild);
    }
    pictures.replaceChildren(h("figure", {}, picture(state.picture, SIZE), h("figcaption", {}, `${state.classes.join(", ")}; the class's own quadrant is framed`)),
      h("figure", {}, over, h("figcaption", {}, state.map ? `energy of ${state.condition} in ${state.layer}: yellow is high` : "no map")));
    plot.replaceChildren(course(state));
    text(sentence, state.sentence);
  };
});
