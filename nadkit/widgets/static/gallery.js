// The pictures that excite a unit most; the unit is named, or reached by its layer and index.
export default panel((body, act) => {
  const task = dropdown("Class", "task", (name) => act("task", name));
  const layer = dropdown("Layer", "layer", (name) => act("unit", `${name}/0`));
  const index = numberField("Unit", "index", (value) => act("unit", `${state_.layer}/${value}`));
  const offer = h("p", { class: "nadkit-chips" }), facts = h("p", { class: "nadkit-sentence", role: "status" });
  const gallery = h("div", { class: "nadkit-gallery" });
  body.append(h("div", { class: "nadkit-row" }, task.root, layer.root, index.root), offer, facts, gallery);
  let state_ = {};
  return (state) => {
    state_ = state;
    task.root.hidden = !state.tasks.length;
    task.update(state.tasks, state.task);
    layer.update(state.layers.map(([name]) => name), state.layer);
    if (!act.busy()) index.update(state.index, state.layers.find(([name]) => name === state.layer)[1] - 1);
    offer.replaceChildren(`${state.offer}: `, ...state.offered.map((name) => button(name, () => act("unit", name), { "aria-pressed": String(name === state.unit), "data-key": `unit-${name}` })));
    text(facts, state.facts);
    gallery.replaceChildren(...state.pictures.map((one) => h("figure", {}, picture(one, 88), h("figcaption", {}, one.caption))));
  };
});
