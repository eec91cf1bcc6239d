// One unit: who keeps it, what it is linked with, and the pictures that excite it most.
export default panel((body, act) => {
  const facts = h("p", { class: "nadkit-sentence" });
  const tasks = h("div", {}), links = h("div", { class: "nadkit-columns" }), gallery = h("div", { class: "nadkit-gallery" });
  body.append(facts, tasks, links, gallery);
  const list = (words, found) => h("div", {}, h("h4", {}, words), found.length
    ? h("ul", { class: "nadkit-plain" }, found.map(([name, share, sign, unit]) => h("li", {},
      unit ? button(name, () => act("unit", name), { "data-key": `${words}-${name}` }) : h("span", {}, name),
      ` ${sign < 0 ? "−" : "+"} ${(100 * share).toFixed(0)} %`)))
    : h("p", {}, "none listed"));
  return (state) => {
    text(facts, state.facts);
    tasks.replaceChildren(...(state.tasks?.length ? [h("p", { class: "nadkit-chips" }, "Kept by: ", state.tasks.map(([name, score]) => button(`${name} ${score.toFixed(2)}`, () => act("task", name), { "aria-pressed": String(name === state.task), "data-key": `task-${name}` })), state.more ? ` and ${state.more} more` : "")] : []));
    links.replaceChildren(...(state.into ? [list("Links into it", state.into), list("Links from it", state.from)] : []));
    gallery.replaceChildren(...(state.pictures ?? []).map((one) => h("figure", {}, picture(one, 72), h("figcaption", {}, one.caption))));
  };
});
